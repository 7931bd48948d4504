"""What can be known before anything is trained: refusals, memory, and whether the network learns at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from anarch_core.errors import ConfigError, SurgeryError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.segments import Segment
from anarch_core.network import copied
from anarch_core.planning.footprint import Footprint
from anarch_core.planning.sharing import share_machine


def settle(context: RunContext, segments: Sequence[Segment], networks: Sequence[Footprint]) -> tuple[int, int]:
    """Segments to train at once and threads of each, once it is certain that nothing foreseeable goes wrong.

    Args:
        context: of the run.
        segments: of the run.
        networks: that the segments train, see :func:`anarch_core.planning.footprint.footprints`.

    Raises:
        SurgeryError: a relaxation refuses a layer, or finds none.
        OutOfMemoryError: the memory does not suffice.
        ConfigError: the network cannot be trained on the data.
    """
    config = context.config
    for network in networks:
        _require_layers(network, context)
    _try_step(context, context.build(config.seeds[0]))
    needs = {f"{work} ({network.name})": size for network in networks for work, size in bytes_needed(context, network).items()}
    work = max(needs, key=lambda name: needs[name])
    return share_machine(
        device=config.device,
        jobs=config.jobs,
        threads=config.threads,
        parallel=len(segments),
        model_bytes=max(network.bytes for network in networks),
        peak_bytes=needs[work],
        data_bytes=context.data.nbytes,
        work=work,
    )


def bytes_needed(context: RunContext, network: Footprint) -> dict[str, int]:
    """Bytes that a process takes for a network, the data set left out, by what it is for."""
    return {
        "training": network.training.held,
        "evaluation": network.evaluation.held,
        **{f"probe {name}": round(probe.vectors() * network.bytes) for name, probe in context.probes.items()},
    }


def _require_layers(network: Footprint, context: RunContext) -> None:
    """Refuse a relaxation that cannot be done, or does nothing."""
    report = network.report
    if report is None:
        return
    if report.refused:
        msg = f"{report.refusal}. Exclude such layers by pattern, as in --layers '*,!{next(iter(report.refused))}'"
        raise SurgeryError(msg, paths=tuple(report.refused))
    if not report.layers:
        msg = f"{report.relaxation} finds no layer to relax in {context.spec.name}"
        raise SurgeryError(msg)


def _try_step(context: RunContext, model: nn.Module) -> None:
    """Take one optimizer step on a copy.

    Raises:
        ConfigError: the network cannot be trained on the data.
    """
    tried = copied(model).train()
    optimizer = context.optimizer(tried, context.config.lr)
    size = min(context.config.batch_size, len(context.data.y_train))
    try:
        with torch.random.fork_rng(devices=[context.device] if context.device.type == "cuda" else []):
            cross_entropy(tried(context.data.x_train[:size]), context.data.y_train[:size]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        msg = f"model {context.spec.name!r} cannot be trained on {context.data.name!r}: {str(error).splitlines()[0]}"
        raise ConfigError(msg) from error
