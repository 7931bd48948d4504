"""What can be known before anything is trained: refusals, memory, and whether the network learns at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import nn

from anarch_core.errors import AnarchError, ConfigError, SurgeryError, first_line
from anarch_core.experiment.context import RunContext
from anarch_core.machine import own_randomness
from anarch_core.network import copied, in_evaluation_mode
from anarch_core.objective.outputs import require_outputs
from anarch_core.planning.columns import require_columns
from anarch_core.planning.footprint import Footprint
from anarch_core.planning.need import Need
from anarch_core.planning.together import obstacle, require_together
from anarch_core.plugin.blame import answering
from anarch_core.training.evaluation import EVALUATED

ON_THE_WAY = 32 * 2**20
"""Bytes of what a run loads and notes while it goes on."""


def foreseen(context: RunContext, networks: Sequence[Footprint]) -> Need:
    """What training takes, once it is certain that nothing foreseeable goes wrong, memory left out.

    Args:
        context: of the run.
        networks: that its segments train, see :func:`anarch_core.planning.footprint.footprints`.

    Raises:
        SurgeryError: a relaxation refuses a layer, or finds none.
        ConfigError: the network cannot be trained on the data, or a component not by processes that train a segment together.
    """
    require_columns(context)
    require_together(context)
    for network in networks:
        _require_layers(network, context)
    _try_step(context, context.build(context.config.seeds[0]))
    return need_of(networks)


def need_of(networks: Sequence[Footprint]) -> Need:
    """What a process takes that trains any of some networks, or its part of it."""
    needs = {f"{work} ({network.name})": size for network in networks for work, size in bytes_needed(network).items()}
    work = max(needs, key=lambda name: needs[name])
    return Need(peak_bytes=needs[work], work=work, model_bytes=max(network.held for network in networks))


def bytes_needed(network: Footprint) -> dict[str, int]:
    """Bytes that a process takes for a network, the data set left out, by what it does with it.

    Training and evaluation take turns, so that either keeps small blocks that the other one left; before a probe they are given back.
    """
    return {
        "training": network.training.beside(network.evaluation.small) + ON_THE_WAY,
        "evaluation": network.evaluation.beside(network.training.small) + ON_THE_WAY,
        **{f"probe {name}": peak.held + ON_THE_WAY for name, peak in network.probes.items()},
        **{f"watched {name}": peak.held + ON_THE_WAY for name, peak in network.watched.items()},
    }


def _require_layers(network: Footprint, context: RunContext) -> None:
    """Refuse a relaxation that cannot be done, or does nothing."""
    report = network.report
    if report is None:
        return
    if report.refused:
        msg = f"{report.refusal}. {_advice(network, next(iter(report.refused)))}"
        raise SurgeryError(msg, paths=tuple(report.refused))
    together = obstacle(context, network.architecture)
    if together is not None:
        advice = f". {_advice(network, together.paths[0])}, or use fewer --shards" if together.paths else ""
        msg = f"{together}{advice}"
        raise SurgeryError(msg, paths=together.paths)
    if not report.layers:
        msg = f"{report.relaxation} finds no layer to relax in {context.spec.name}{report.why_none}"
        raise SurgeryError(msg)


def _advice(network: Footprint, path: str) -> str:
    """How a layer is left out."""
    steps = network.architecture.steps
    where = f"--layers '*,!{path}'" if len(steps) == 1 else f"--path '...,{steps[-1].relaxation}[!{path}]@...'"
    return f"Exclude such layers by pattern, as in {where}"


def _try_step(context: RunContext, model: nn.Module) -> None:
    """Evaluate a copy and take one optimizer step with it.

    Raises:
        ConfigError: the network cannot be trained on the data, or does not give what the objective expects in one of its modes.
    """
    data, tried = context.data, copied(model)
    size = min(context.config.batch_size, len(data.y_train))
    last = len(data.y_train) % size
    parts = (data.y_train, data.y_test, *(() if data.y_validation is None else (data.y_validation,)))
    with own_randomness(context.device):
        with torch.no_grad(), in_evaluation_mode(tried):
            # One sample alone, where a part is left with it, is what networks trip over.
            alone = any(len(labels) % EVALUATED == 1 for labels in parts)
            for samples in {min(2, len(data.y_train)), *([1] if alone else [])}:
                _outputs(context, tried, samples)
        tried.train()
        if last:
            with torch.no_grad():
                _outputs(context, tried, last)
        _try_augmenting(context, size)
        optimizer = context.optimizer(tried, context.config.lr)
        outputs = _outputs(context, tried, size)
        if not outputs.requires_grad:
            msg = (
                f"model {context.spec} cannot be trained: its outputs depend on no parameter that requires a gradient; set requires_grad, "
                "and let it compute without torch.no_grad() and detach()"
            )
            raise ConfigError(msg)
        with _told(context, size):
            data.objective.loss(outputs, data.y_train[:size]).backward()  # type: ignore[no-untyped-call]
            answering(optimizer.step)()


def _try_augmenting(context: RunContext, size: int) -> None:
    """Augment a batch of the first training samples.

    Raises:
        ConfigError: targets have places of their own, which would not move with the inputs.
        PluginError: an augmentation does not take such inputs.
    """
    data, augment = context.data, context.augmenting(context.config.seeds[0])
    if augment is None:
        return
    if data.y_train.ndim > 2:
        msg = (
            f"--augment changes inputs alone, but the targets of {context.config.data!r} have places, {tuple(data.y_train.shape[1:])} that "
            "would have to move with them; leave it out, or augment such data before they are loaded"
        )
        raise ConfigError(msg)
    augment(data.inputs("train")[:size], torch.arange(size), 0)


def _outputs(context: RunContext, model: nn.Module, samples: int) -> torch.Tensor:
    """What a network gives for the first training samples.

    Raises:
        ConfigError: it does not take them, or gives something else than outputs of a finite loss.
    """
    mode = "training" if model.training else "evaluation"
    with _told(context, samples):
        output = model(context.data.inputs("train")[:samples])
    given = {1: "one input", 2: "two inputs"}.get(samples, f"{samples} inputs") + f" of shape {context.spec.input_shape} in {mode} mode"
    outputs = require_outputs(output, samples, context.spec.outputs, f"model {context.spec}", given)
    losses = context.data.objective.loss(outputs.detach(), context.data.y_train[:samples], "none")  # minus infinity may rule a class out
    bad = samples - int(losses.isfinite().sum())
    if bad:
        msg = (
            f"model {context.spec} gives numbers whose loss is not finite for {bad} of {samples} inputs in {mode} mode, and nothing was "
            "trained yet; correct how it begins, or what it does with its inputs"
        )
        raise ConfigError(msg)
    return outputs


@contextlib.contextmanager
def _told(context: RunContext, samples: int) -> Iterator[None]:
    """Turn what a network raises into one line."""
    try:
        yield
    except (torch.OutOfMemoryError, AnarchError):
        raise
    except Exception as error:  # the network and the optimizer may be anybody's
        msg = f"model {context.spec.name!r} cannot be trained on {context.data.name!r} with a batch of {samples}: {first_line(error)}"
        raise ConfigError(msg) from error
