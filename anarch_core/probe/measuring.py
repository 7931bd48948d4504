"""Running a probe: what it needs, the network left as it was, and numbers that JSON can hold."""

from __future__ import annotations

import json
import math

import attrs
from torch import nn

from anarch_core.curvature.differentiable import differentiable
from anarch_core.network import undisturbed
from anarch_core.probe.base import AbstractProbe, Measurement, ProbeContext
from anarch_core.relaxation.verbs import applied_relaxations


def missing_needs(probe: AbstractProbe, model: nn.Module, *, data: object, reference: object, parent: object) -> list[str]:
    """What a probe needs and does not get, sorted.

    Args:
        probe: the probe.
        model: the network.
        data: None where there are none; the others likewise.
        reference: the network at an earlier moment.
        parent: the network it was lifted from.
    """
    given = {"data": data, "reference": reference, "parent": parent, "relaxed": applied_relaxations(model) or None}
    return sorted(need for need in probe.needs if given[need] is None)


def measured(probe: AbstractProbe, context: ProbeContext) -> Measurement:
    """What a probe finds, in numbers that JSON can hold: what is not finite becomes None.

    Args:
        probe: to be run; nothing of :func:`missing_needs`.
        context: the network is left as it was, whatever the probe does to it.

    Raises:
        Exception: whatever the probe raises; and a TypeError or ValueError where what it reports is no JSON.
    """
    with undisturbed(context.model), differentiable(context.model):
        found = probe.measure(context)
    scalars = {name: None if value is None else finite(float(value)) for name, value in found.scalars.items()}
    details = json.loads(json.dumps(dict(found.details)), parse_constant=lambda _: None)
    return attrs.evolve(found, scalars=scalars, details=details)


def finite(value: float) -> float | None:
    """The number, None where it is not finite."""
    return value if math.isfinite(value) else None
