"""Running a probe: what it needs, all left as it was, and numbers that JSON can hold."""

from __future__ import annotations

import json
from collections.abc import Callable

import attrs
import torch
from torch import nn

from anarch_core.curvature.differentiable import differentiable
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import PluginError, ProbeError, plain, warn
from anarch_core.models import warn_of_batch_dependence
from anarch_core.network import undisturbed
from anarch_core.plugin.blame import expected, on_behalf_of, origin
from anarch_core.probe.base import NEEDS, AbstractProbe, Measurement, ProbeContext
from anarch_core.probe.scores import finite
from anarch_core.probe.watch import Damage, Watch, listed
from anarch_core.relaxation.verbs import applied_relaxations
from anarch_core.sharding.shared_out import shards_of


class DisturbedError(PluginError):
    """A probe changed a network or data, and nothing can put them back: what is computed from now on would be something else."""


def missing_needs(probe: AbstractProbe, model: nn.Module, **given: object) -> list[str]:
    """What a probe needs and does not get, sorted.

    Args:
        probe: the probe.
        model: the network.
        given: by name, what there is of :data:`~anarch_core.probe.base.NEEDS`; None or absent where there is nothing.

    Raises:
        PluginError: the probe needs something else.
    """
    there = dict.fromkeys(NEEDS) | given | {"relaxed": applied_relaxations(model) or None}
    with on_behalf_of(origin(probe), f"`needs` must be a set of {', '.join(sorted(there))}"):
        return sorted(need for need in probe.needs if there[need] is None)


def measured(
    probe: AbstractProbe,
    context: ProbeContext,
    *,
    tell: Callable[[str], None] | None = None,
    reread: Callable[[], TensorData] | None = None,
) -> Measurement:
    """What a probe finds, in numbers that JSON can hold: what is not finite becomes None.

    Networks, data, random states and settings of the process are looked at before and after, however the probe ends.

    Args:
        probe: to be run; nothing of :func:`missing_needs`.
        context: what it is given.
        tell: called with a sentence for a probe that left something changed, which was put back; a warning by default.
        reread: gives the data again, for a probe that changed them.

    Raises:
        DisturbedError: the probe changed what nothing can put back.
        ProbeError: the network does not allow the measurement, or several processes hold it together and the probe does not say that it
            measures such networks.
        PluginError: the probe raises, or what it gives is no measurement.
        DataError: the data are no data of classes.
    """
    who = origin(probe)
    if (shards := shards_of(context.model)) is not None and not probe.sharded:
        msg = (
            f"{who} does not measure networks that several processes hold together, as {shards.size} do this one, or not with these "
            "options; measure a checkpoint in one process with 'anarch probe', or leave the probe out"
        )
        raise ProbeError(msg)
    if context.data is not None:
        context.data.check()
        warn_of_batch_dependence(context.model)
    with undisturbed(context.model), differentiable(context.model):
        watch = Watch.of(context, reread)
        found: Measurement | Exception
        try:
            with on_behalf_of(who):
                found = _called(probe, context)
        except Exception as error:
            found = error
        _judge(who, watch.end(), tell)
    if isinstance(found, Exception):
        raise found
    with on_behalf_of(who, "its measurement cannot be stored"):
        return _storable(expected(who, "measure()", found, Measurement))


def _called(probe: AbstractProbe, context: ProbeContext) -> Measurement:
    try:
        return probe.measure(context)
    except NotImplementedError as error:
        msg = f"{origin(probe)} cannot measure this network: {plain(error)}"
        raise ProbeError(msg) from error


def _judge(who: str, damage: Damage, tell: Callable[[str], None] | None) -> None:
    if damage.lost:
        msg = f"{who} changed {listed(damage.lost)}, which cannot be put back; leave the probe out, and tell its author"
        raise DisturbedError(msg)
    if damage.restored:
        text = f"{who} left changed: {listed(damage.restored)}; what could be was put back, but a probe has to leave everything as it was"
        if tell is None:
            warn(text, UserWarning)
        else:
            tell(text)


def _storable(found: Measurement) -> Measurement:
    scalars = {_name(name): None if value is None else finite(float(value)) for name, value in found.scalars.items()}
    details = json.loads(json.dumps(dict(found.details)), parse_constant=lambda _: None)
    units = {_name(name): _name(unit) for name, unit in found.units.items()}
    for name, tensor in found.tensors.items():
        if not isinstance(tensor, torch.Tensor):
            msg = f"{_name(name)!r} is a {type(tensor).__name__}, expected a tensor"
            raise TypeError(msg)
    omitted = plain(_name(found.omitted))
    return attrs.evolve(found, scalars=scalars, details=details, units=units, tensors=dict(found.tensors), omitted=omitted)


def _name(text: object) -> str:
    if not isinstance(text, str):
        msg = f"{plain(text)!r} is a {type(text).__name__}, expected text"
        raise TypeError(msg)
    return text
