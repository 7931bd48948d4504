"""The drift of one layer, as its author's code gives it, looked at before anything is computed of it."""

from __future__ import annotations

import math

import attrs
from torch import nn

from anarch_core.constraint.parts import PARTS, Drift
from anarch_core.errors import PluginError, SurgeryError
from anarch_core.layers.base import RelaxedLayer
from anarch_core.plugin.blame import expected, on_behalf_of


def measured_drift(layer: RelaxedLayer, path: str, reference: nn.Module | None = None) -> Drift:
    """What ``drift()`` of a layer gives.

    Args:
        layer: that is measured.
        path: of the layer, for messages.
        reference: the same layer at an earlier moment.

    Raises:
        SurgeryError: the layer says that it has none, or that the reference is another layer.
        PluginError: the layer raises, or a part of what it gives is no squared norm: negative, or not finite for weights that are.
    """
    who = f"{path or 'the network'}, relaxed by {layer.relaxation}"
    try:
        with on_behalf_of(who, "drift()"):
            drift = layer.drift(reference)
    except SurgeryError as error:
        msg = f"{who}, has no drift: {error}"
        raise SurgeryError(msg, paths=(path,)) from error
    expected(who, "drift()", drift, Drift)
    parts = {field.name: getattr(drift, field.name) for field in attrs.fields(Drift) if field.name != "initial"}
    parts |= {f"initial, {part}": value for part, value in zip(PARTS, drift.initial or (), strict=False)}
    known = {name: value for name, value in parts.items() if value is not None}
    negative = next((name for name, value in known.items() if value < 0), None)
    if negative is not None:
        msg = (
            f"{who}: the part {negative!r} of its drift() is {known[negative]:.6g}, and a squared norm is not negative; "
            "sum the squares of the part itself, since differences of sums are rounded"
        )
        raise PluginError(msg)
    odd = next((name for name, value in known.items() if not math.isfinite(value)), None)
    if odd is not None and _finite(layer, None if odd not in ("moved", "reference") else reference):
        msg = f"{who}: the part {odd!r} of its drift() is {known[odd]}, although all of its weights are finite; sum in float64"
        raise PluginError(msg)
    return drift


def _finite(*modules: nn.Module | None) -> bool:
    """Whether all numbers of some modules are finite, and small enough to be squared."""
    return all(
        bool(parameter.isfinite().all()) and float(parameter.detach().abs().max()) < math.sqrt(1e300)
        for module in modules
        if module is not None
        for parameter in module.parameters()
        if parameter.numel()
    )
