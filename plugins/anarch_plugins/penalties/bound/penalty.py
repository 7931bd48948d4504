"""The penalty ``bound``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from anarch_core.lattice import Part
from anarch_core.layers import RelaxedLayer
from anarch_core.training import AbstractPenalty, PartSquare, Progress, Term
from anarch_plugins.penalties.bound.options import BoundOptions


class BoundPenalty(AbstractPenalty):
    """Keeps δ = ‖P W‖ / ‖W‖ of every relaxed layer at most ε(t), by a multiplier μ of each.

    Descent in the weights and ascent in the multipliers, step by step: μ ← max(0, μ + rate · (δ - ε)), from 0, and the term of a layer is
    ½ μ ‖W‖² (δ² - ε²), with ‖W‖ taken for a constant: the gradient μ (P W - δ² W) is at right angles to W, so that a layer cannot meet
    the bound by growing. μ has the unit of the weight of ``parts``, and P is as there. Biases, which δ leaves out, are drawn to their mean
    by μ alike.

    In the history: ``value``, ``bound`` (ε), and over the layers the largest ``delta``, the largest ``multiplier`` and their mean.
    """

    options: BoundOptions

    def __init__(self, options: BoundOptions) -> None:
        super().__init__(options)
        self._multipliers: dict[str, torch.Tensor] = {}
        self._parts: tuple[Part, ...] = ("unshared", "off-local") if options.of == "both" else (options.of,)

    def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
        """One for each layer, with the multiplier that it then has."""
        bound = self._bound(progress)
        for path, layer in layers.items():
            held, (weights, total) = PartSquare.of(layer, self._parts, path), _whole(layer)
            square = _ratio(held.drifting, total)
            multiplier = self._multiplier(path, square)
            multiplier.add_(square.double().sqrt().sub_(bound), alpha=self.options.rate).clamp_(min=0)
            factor = multiplier.to(square)
            for name, gradient in held.gradients.items():
                if name in weights:
                    gradient.addcmul_(weights[name], square, value=-1)
                gradient.mul_(factor)
            yield Term(path, factor / 2 * (held.drifting - bound**2 * total), held.gradients)

    def scalars(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Mapping[str, float]:
        """The bound, the largest deviation, and the multipliers."""
        squares = [_ratio(PartSquare.of(layer, self._parts, path).drifting, _whole(layer)[1]) for path, layer in layers.items()]
        multipliers = [float(multiplier) for multiplier in self._multipliers.values()] or [0.0]
        return {
            "bound": self._bound(progress),
            "delta": max(map(float, squares)) ** 0.5,
            "multiplier": max(multipliers),
            "mean_multiplier": sum(multipliers) / len(multipliers),
        }

    def state(self) -> dict[str, torch.Tensor]:
        """The multipliers, by layer."""
        return self._multipliers

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Go on with these multipliers."""
        self._multipliers = {path: multiplier.clone() for path, multiplier in tensors.items()}

    def _multiplier(self, path: str, like: torch.Tensor) -> torch.Tensor:
        found = self._multipliers.get(path)
        self._multipliers[path] = like.new_zeros((), dtype=torch.float64) if found is None else found.to(like.device)
        return self._multipliers[path]

    def _bound(self, progress: Progress) -> float:
        options = self.options
        return progress.ramp(options.ramp, options.start, options.bound, begins=options.begins, ends=options.ends)


def _whole(layer: RelaxedLayer) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The gradient of half the squared norm of a layer's weights, by name and not to be written to, and that squared norm."""
    parameters = {name: parameter.detach() for name, parameter in layer.named_parameters()}
    weights = {name: layer.gram(parameters[name], name) for name in layer.drifting()}
    return weights, torch.stack([torch.dot(parameters[name].flatten(), weight.flatten()) for name, weight in weights.items()]).sum()


def _ratio(square: torch.Tensor, total: torch.Tensor) -> torch.Tensor:
    return (square / total.clamp(min=torch.finfo(total.dtype).tiny)).clamp(0, 1)
