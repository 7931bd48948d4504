"""The probe ``gradient``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from anarch_core.curvature import Risk
from anarch_core.errors import ProbeError
from anarch_core.lattice import PARTS, Part
from anarch_core.probe import AbstractProbe, Measurement, ParameterParts, ProbeContext, finite
from anarch_plugins.probes.gradient.options import GradientOptions

BLOCK = 2**20
"""Numbers that are squared in float64 at once."""


class GradientProbe(AbstractProbe):
    """Norm of the full gradient of the training loss, in evaluation mode.

    ``norm`` is by the parameters as they are. The parts are in orthonormal coordinates (see :mod:`anarch_core.probe.coordinates`), where
    the gradient of a CNN and the shared part of its eFCN's gradient are equal at the switch.
    """

    needs = frozenset({"data"})
    sharded = True
    headline = ("norm_shared",)

    options: GradientOptions

    def measure(self, context: ProbeContext) -> Measurement:
        """Measure all norms.

        Raises:
            ProbeError: there are no data, or the parameters are of half precision or frozen.
        """
        risk = Risk.of_training_set(context.model, context.required_data, self.options.samples, batch_size=self.options.batch_size)
        gradient = risk.named_views(risk.gradient())
        whole = risk.totals({name: _square(tensor) for name, tensor in gradient.items()})
        scalars: dict[str, float | None] = {"loss": finite(risk.value()), "norm": _norm(whole.values())}
        layers: dict[str, dict[str, float | None]] = {}
        for path in dict.fromkeys(name.rpartition(".")[0] for name in gradient):
            layers[path] = {"norm": _norm(_of_layer(whole, path))}
        details: dict[str, Any] = {"samples": risk.samples, "parameters": risk.size, "mode": "evaluation", "layers": layers}
        try:
            parts = ParameterParts.of(context.model, risk.inputs[:1])
            found = {part: risk.totals(_squares(gradient, parts, part)) for part in PARTS}
        except ProbeError as error:
            scalars |= {f"norm_{part.replace('-', '_')}": None for part in PARTS}
            details["parts_not_measured"] = str(error)
            return Measurement(scalars=scalars, units={"loss": context.objective.loss_unit}, details=details)
        if parts.incomparable:
            details["incomparable"] = parts.incomparable
        for part, squares in found.items():
            key = f"norm_{part.replace('-', '_')}"
            scalars[key] = _norm(squares.values())
            for path, layer in layers.items():
                layer[key] = _norm(_of_layer(squares, path))
        return Measurement(scalars=scalars, units={"loss": context.objective.loss_unit}, details=details)


def _squares(gradient: Mapping[str, torch.Tensor], parts: ParameterParts, part: Part) -> dict[str, float]:
    """Squared norm of one part of the gradient by every parameter."""
    return {
        name: _square(tensor)
        for together in _together(gradient, parts)
        for name, tensor in parts.project(parts.covariant(together), part).items()
    }


def _together(gradient: Mapping[str, torch.Tensor], parts: ParameterParts) -> Iterable[dict[str, torch.Tensor]]:
    """The gradient layer by layer, since parameters of one may have parts together only; no more than a layer is projected at once."""
    groups: dict[object, dict[str, torch.Tensor]] = {}
    for name, tensor in gradient.items():
        groups.setdefault(parts.owners[name][0] if name in parts.owners else name, {})[name] = tensor
    return groups.values()


def _of_layer(squares: Mapping[str, float], path: str) -> list[float]:
    return [square for name, square in squares.items() if name.rpartition(".")[0] == path]


def _norm(squares: Iterable[float]) -> float | None:
    return finite(math.sqrt(math.fsum(squares)))


def _square(tensor: torch.Tensor) -> float:
    """Squared norm, in float64 and without a copy of the whole."""
    return math.fsum(float(block.double().square().sum()) for block in torch.split(tensor.reshape(-1), BLOCK))
