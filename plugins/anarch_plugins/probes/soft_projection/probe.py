"""The probe ``soft-projection``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import nn

from anarch_core.lattice import Part
from anarch_core.layers import relaxed_layers
from anarch_core.network import undisturbed, with_parameters
from anarch_core.probe import (
    AbstractProbe,
    Measurement,
    ProbeContext,
    ProbeRehearsal,
    chosen_data,
    finite,
    named_scores,
    require_relaxed_layers,
    score_unit,
    weighted_parts,
)
from anarch_core.relaxation import project
from anarch_core.training import Score, evaluate
from anarch_plugins.probes.soft_projection.options import SoftProjectionOptions

STAYING: dict[str, tuple[Part, ...]] = {
    "both": ("shared",),
    "unshared": ("shared", "off-local"),
    "off-local": ("shared", "unshared"),
}
"""Which parts stay as they are, by what is scaled."""


class SoftProjectionProbe(AbstractProbe):
    """Evaluates W_s = S + s U + O, S + U + s O and S + s (U + O), for the shared, unshared and off-local part of every relaxed weight.

    All relaxed layers are scaled by the same s. At s = 1 the network is as it is; at s = 0 it is its projection onto the constraints
    (``both``), without un-sharing, or local. What of a bias differs between positions is unshared.

    Scalars, for each of these: ``<score>_<scaled>`` and ``loss_<scaled>`` at s = 0; the best score of all s, ``best_<score>_<scaled>``, and
    the s at which it is, ``best_at_<scaled>``; further ``<score>_full`` and ``loss_full``. Tensors hold rows of s, loss and the scores.
    """

    needs = frozenset({"data", "relaxed"})
    headline = ("{metric}_both",)

    options: SoftProjectionOptions

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of three values of s; further ones take the room of those before them."""
        few = attrs.evolve(self.options, points=min(self.options.points, 3))
        return rehearsal.peak(lambda: SoftProjectionProbe(few).measure(rehearsal.context))

    def measure(self, context: ProbeContext) -> Measurement:
        """Evaluate every s.

        Raises:
            ProbeError: there are no data of the chosen part, or no layer is relaxed.
        """
        x, y = chosen_data(context.required_data, self.options.part, "soft-projection")
        model, metric = context.model, context.objective.metric
        require_relaxed_layers(model, "soft-projection")
        values = [index / (self.options.points - 1) for index in range(self.options.points)]
        scalars: dict[str, float | None] = {}
        details: dict[str, Any] = {"data": self.options.part, "samples": len(y), "values": values}
        tensors: dict[str, torch.Tensor] = {}
        kinds = list(dict.fromkeys(self.options.scaled))
        with undisturbed(model), torch.no_grad():
            for number, scaled in enumerate(kinds):
                scores: list[Score] = []
                for weights in _scaled(model, STAYING[scaled], values):
                    scores.append(evaluate(with_parameters(model, weights), x, y, objective=context.objective))
                    context.progress(number * len(values) + len(scores), len(kinds) * len(values), f"soft projection: {scaled}")
                name = scaled.replace("-", "_")
                if not number:
                    scalars |= named_scores("full", scores[-1].loss, scores[-1].metrics)
                scalars |= named_scores(name, scores[0].loss, scores[0].metrics)
                found = [score.metrics[metric.name] for score in scores]
                best = max(found) if metric.higher_is_better else min(found)
                scalars |= {f"best_{metric.name}_{name}": finite(best), f"best_at_{name}": values[found.index(best)]}
                tensors[name] = torch.tensor(
                    [[s, score.loss, *score.metrics.values()] for s, score in zip(values, scores, strict=True)], dtype=torch.float64
                )
                if scaled == "both":
                    projected = evaluate(project(model), x, y, objective=context.objective)
                    details["projection"] = {"loss": finite(projected.loss), "difference": finite(scores[0].loss - projected.loss)}
        details["columns"] = ["s", "loss", *(each.name for each in context.objective.metrics)]
        units = {name: _unit(name, context) for name in scalars}
        return Measurement(scalars=scalars, units=units, details=details, tensors=tensors)


def _scaled(model: nn.Module, staying: tuple[Part, ...], values: list[float]) -> Iterator[dict[str, torch.Tensor]]:
    """The relaxed parameters with their other parts scaled, by name, value after value; written over by the next."""
    full, least = {}, {}
    for path, layer in relaxed_layers(model).items():
        own = {name: parameter.detach() for name, parameter in layer.named_parameters()}
        names = {name: f"{path}.{name}" if path else name for name in own}
        full.update({names[name]: tensor for name, tensor in own.items()})
        least.update({names[name]: tensor for name, tensor in weighted_parts(path, layer, own, dict.fromkeys(staying, 1.0)).items()})
    there = {name: torch.empty_like(tensor) for name, tensor in full.items()}
    for value in values:
        for name, tensor in there.items():
            torch.lerp(least[name], full[name], value, out=tensor)  # exact at both ends
        yield there


def _unit(scalar: str, context: ProbeContext) -> str:
    return "1" if scalar.startswith("best_at_") else score_unit(scalar.removeprefix("best_"), context.objective)
