"""The penalty ``parts``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch

from anarch_core.lattice import Part
from anarch_core.layers import RelaxedLayer
from anarch_core.training import AbstractPenalty, PartSquare, Progress, Term
from anarch_plugins.penalties.parts.options import PartsOptions


class PartsPenalty(AbstractPenalty):
    """½ λ(t) Σ ‖P W‖² over the relaxed layers, P the projection onto the unshared part, the off-local part, or both together.

    Biases are held as weights are: what of them differs between positions is unshared. The gradient is λ P W, linear in the weights: no
    graph is made of the projection. For layers that share weights, norms are those of the matrix that they stand for.

    In the history: ``value``, ``weight`` (λ), and the norms of the parts over the norm of the weights, ``unshared`` and ``off_local``, as
    the probe ``delta`` measures them.
    """

    options: PartsOptions

    def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
        """One for each layer, as long as λ is not 0."""
        weight = self._weight(progress)
        parts: tuple[Part, ...] = ("unshared", "off-local") if self.options.of == "both" else (self.options.of,)
        for path, layer in layers.items() if weight else ():
            square = PartSquare.of(layer, parts, path)
            gradients = {name: gradient.mul_(weight) for name, gradient in square.gradients.items()}
            yield Term(path, torch.stack(list(square.squares.values())).sum() * (weight / 2), gradients)

    def scalars(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Mapping[str, float]:
        """The weight, and how large the parts are."""
        drifts = [layer.drift() for layer in layers.values()]
        total = math.fsum(drift.total for drift in drifts)
        unshared, off_local = math.fsum(drift.unshared for drift in drifts), math.fsum(drift.off_local for drift in drifts)
        found = {"weight": self._weight(progress)}
        if total > 0:
            found |= {"unshared": math.sqrt(unshared / total), "off_local": math.sqrt(off_local / total)}
        return found

    def _weight(self, progress: Progress) -> float:
        options = self.options
        return progress.ramp(options.ramp, options.start, options.weight, begins=options.begins, ends=options.ends)
