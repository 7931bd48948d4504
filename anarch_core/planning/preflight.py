"""What can be known before anything is trained: refusals, memory, and whether the network learns at all."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import attrs
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError, SurgeryError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.segments import Segment
from anarch_core.planning.footprint import Footprint
from anarch_core.planning.sharing import share


def check(executor: RunContext, segments: Sequence[Segment], networks: Sequence[Footprint]) -> RunConfig:
    """The configuration with ``jobs`` and ``threads`` settled, once it is certain that nothing foreseeable goes wrong.

    Args:
        executor: of the run.
        segments: of the run.
        networks: that the segments train, see :func:`anarch_core.planning.footprint.footprints`.

    Raises:
        SurgeryError: a relaxation refuses a layer, or finds none.
        OutOfMemoryError: the memory does not suffice.
        ConfigError: the network cannot be trained on the data.
    """
    config = executor.config
    for network in networks:
        _require_layers(network, executor)
    _try_step(executor, executor.build(config.seeds[0]))
    needs = {f"{work} ({network.name})": size for network in networks for work, size in needed(executor, network).items()}
    work = max(needs, key=lambda name: needs[name])
    jobs, threads = share(
        device=config.device,
        jobs=config.jobs,
        threads=config.threads,
        parallel=len(segments),
        model_bytes=max(network.bytes for network in networks),
        peak_bytes=needs[work],
        data_bytes=executor.data.nbytes,
        work=work,
    )
    return attrs.evolve(config, jobs=jobs, threads=threads)


def needed(executor: RunContext, network: Footprint) -> dict[str, int]:
    """Bytes that a process takes for a network, the data set left out, by what it is for."""
    return {
        "training": network.training.held,
        "evaluation": network.evaluation.held,
        **{f"probe {name}": round(probe.vectors() * network.bytes) for name, probe in executor.probes.items()},
    }


def _require_layers(network: Footprint, executor: RunContext) -> None:
    """Refuse a relaxation that cannot be done, or does nothing."""
    report = network.report
    if report is None:
        return
    if report.refused:
        reasons = "; ".join(f"{path or 'the network'} cannot be relaxed: {reason}" for path, reason in report.refused.items())
        msg = f"{reasons}. Exclude such layers by pattern, as in --layers '*,!{next(iter(report.refused))}'"
        raise SurgeryError(msg, paths=tuple(report.refused))
    if not report.layers:
        msg = f"{report.relaxation} finds no layer to relax in {executor.spec.name}"
        raise SurgeryError(msg)


def _try_step(executor: RunContext, model: nn.Module) -> None:
    """Take one optimizer step on a copy.

    Raises:
        ConfigError: the network cannot be trained on the data.
    """
    tried = copy.deepcopy(model).train()
    optimizer = executor.optimizer(tried, executor.config.lr)
    size = min(executor.config.batch_size, len(executor.data.y_train))
    try:
        with torch.random.fork_rng(devices=[executor.device] if executor.device.type == "cuda" else []):
            cross_entropy(tried(executor.data.x_train[:size]), executor.data.y_train[:size]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        msg = f"model {executor.spec.name!r} cannot be trained on {executor.data.name!r}: {str(error).splitlines()[0]}"
        raise ConfigError(msg) from error
