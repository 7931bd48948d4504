"""The probe ``equivariance``."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from anarch_core.errors import ProbeError
from anarch_core.layers import relaxed_layers
from anarch_core.network import undisturbed
from anarch_core.objective import AbstractObjective, outputs_of
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext, SpatialLayer, spatial_layers, symmetric_layers
from anarch_plugins.probes.equivariance.options import EquivarianceOptions

Network = Callable[[torch.Tensor], torch.Tensor]
"""A network whose outputs are looked at as it is called."""


class EquivarianceProbe(AbstractProbe):
    """Shifts inputs along each axis, filling with zeros, and looks at what comes out.

    * ``output_change``: ``|f(Tx) - f(x)| / |f(x)|`` over all samples, ``f`` the logits: invariance of the whole network;
    * ``agreement``: how often the predicted class stays; None where the objective has the network decide nothing;
    * ``equivariance_error``: ``|g(Th) - T g(h)| / |g(h)|`` of a layer ``g`` on its own inputs ``h``, at positions whose receptive field
      meets no border; zero for a convolution. The root mean square over the layers; each layer's is in the details;
    * ``distance``, ``effective_weights``: root mean square distance of the weights from the centre of their receptive field in pixels, and
      inverse participation ratio; means over the layers;
    * ``rotation_change``: as ``output_change``, for square images that are turned by 90 degrees counterclockwise;
    * ``rotation_error``, and others of this form: ``|g(T h) - T' g(h)| / |g(h)|`` of layers that name a symmetry by a method
      ``symmetries()``, as P4Conv2d does, or that were relaxed from one that does. The root mean square over these layers.

    A layer where one is not defined (too small to shift, all weights zero) is left out of its mean; where numbers are not finite, nothing
    is told.
    """

    needs = frozenset({"data"})
    headline = ("equivariance_error", "rotation_error")

    options: EquivarianceOptions

    def measure(self, context: ProbeContext) -> Measurement:
        """Measure network and layers.

        Raises:
            ProbeError: there are no data.
            ConfigError: the network gives no outputs that the objective expects.
        """
        data = context.required_data
        x, y = data.inputs("test")[: self.options.samples], data.y_test[: self.options.samples]
        spatial = x.ndim >= 3
        if spatial or x.is_floating_point():
            x = x.to(next((parameter.dtype for parameter in context.model.parameters() if parameter.is_floating_point()), x.dtype))
        network = functools.partial(outputs_of, context.model, targets=y, objective=context.objective)
        with undisturbed(context.model), torch.no_grad():
            changes, agreements = self._network(network, x, context.objective) if spatial else ([], [])
            layers = {path: self._layer(layer) for path, layer in spatial_layers(context.model, x).items()} if spatial else {}
            turned = _turned(network, x)
            symmetric = {path: layer.errors() for path, layer in symmetric_layers(context.model, x).items()}
        scalars = {
            **_by_name(symmetric),
            "output_change": _root_mean_square(changes),
            "agreement": _mean(agreements),
            "equivariance_error": _root_mean_square([layer["equivariance_error"] for layer in layers.values()]),
            "distance": _mean([layer["distance"] for layer in layers.values()]),
            "effective_weights": _mean([layer["effective_weights"] for layer in layers.values()]),
            "rotation_change": turned,
        }
        details: dict[str, Any] = {
            "samples": len(x),
            "shift": self.options.shift,
            "layers": {path: _finite(layer) for path, layer in layers.items()},
        }
        if symmetric:
            details["symmetries"] = {path: _finite(errors) for path, errors in symmetric.items()}
        omitted = _omitted(x, [path for path in relaxed_layers(context.model) if path not in layers and path not in symmetric])
        units = {"agreement": "%", "distance": "pixels"}
        return Measurement(scalars=_finite(scalars), units=units, details=details, omitted=omitted)

    def _network(self, model: Network, x: torch.Tensor, objective: AbstractObjective) -> tuple[list[float], list[float | None]]:
        outputs = model(x)
        decided = objective.decisions(outputs)
        changes: list[float] = []
        agreements: list[float | None] = []
        for dim in range(2, x.ndim):
            shifted = model(_shift(x, dim, self.options.shift))
            changes.append(float((shifted - outputs).norm() / outputs.norm()))
            told = bool(outputs.isfinite().all() and shifted.isfinite().all())  # argmax would take nan for the largest
            if decided is not None:
                agreements.append(100 * float((objective.decisions(shifted) == decided).double().mean()) if told else math.nan)  # type: ignore[union-attr]
        return changes, agreements

    def _layer(self, layer: SpatialLayer) -> dict[str, float | None]:
        output = layer.module(layer.input)
        errors = []
        for dim, axis in enumerate(layer.geometry.axes, start=2):
            positions = self.options.shift
            first = torch.arange(max(axis.positions - positions, 0)) * axis.stride - axis.before
            last = first + positions * axis.stride + axis.dilation * (axis.kernel - 1)
            interior = torch.nonzero((first >= 0) & (last < axis.size)).flatten().to(output.device)
            expected = output.index_select(dim, interior)
            if expected.numel() and float(expected.norm()) != 0:
                found = layer.module(_shift(layer.input, dim, positions * axis.stride)).index_select(dim, interior + positions)
                errors.append(float((found - expected).norm() / expected.norm()))
        try:
            spread = layer.statistics()
        except ProbeError:
            spread = math.nan, math.nan
        if math.isnan(spread[0]) and bool(layer.weights().isfinite().all()):
            return {"equivariance_error": _root_mean_square(errors), "distance": None, "effective_weights": None}
        return {"equivariance_error": _root_mean_square(errors), "distance": spread[0], "effective_weights": spread[1]}


def _shift(x: torch.Tensor, dim: int, pixels: int) -> torch.Tensor:
    """Move the content towards higher indices; zeros come in, what leaves is lost."""
    size = x.shape[dim]
    shifted = torch.zeros_like(x)
    if pixels < size:
        shifted.narrow(dim, pixels, size - pixels).copy_(x.narrow(dim, 0, size - pixels))
    return shifted


def _omitted(x: torch.Tensor, others: list[str]) -> str:
    if x.ndim < 3:
        return f"inputs of {list(x.shape[1:])} have no axis to shift along, as [channels, *spatial] have"
    more = f" and {len(others) - 3} more" if others[3:] else ""
    return f"{', '.join(others[:3])}{more} cannot be shifted: no convolution, or called several times" if others else ""


def _turned(model: Network, x: torch.Tensor) -> float | None:
    """How far the output moves when square images are turned; None for other inputs."""
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        return None
    outputs = model(x)
    return float((model(x.rot90(1, (2, 3))) - outputs).norm() / outputs.norm())


def _by_name(symmetric: Mapping[str, Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean error of each symmetry; that of rotation is always told, None where no layer has it."""
    names = dict.fromkeys(["rotation", *(name for errors in symmetric.values() for name in errors)])
    return {f"{name}_error": _root_mean_square([errors[name] for errors in symmetric.values() if name in errors]) for name in names}


def _root_mean_square(values: list[float] | list[float | None]) -> float | None:
    mean = _mean([None if value is None else value * value for value in values])
    return None if mean is None else math.sqrt(mean)


def _mean(values: list[float] | list[float | None]) -> float | None:
    """Of what is defined, None where nothing is; a value that is not finite makes a mean that is not."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _finite(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}
