"""The probe ``ablation``."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import nn

from anarch_core.lattice import Part
from anarch_core.network import undisturbed, with_parameters
from anarch_core.probe import (
    AbstractProbe,
    Measurement,
    ProbeContext,
    ProbeRehearsal,
    chosen_data,
    finite,
    named_scores,
    relaxed_weights,
    require_relaxed_layers,
    score_unit,
    weighted_parts,
)
from anarch_core.sharding import Cut, Shards, cuts_of, shards_of
from anarch_core.training import Score, evaluate
from anarch_plugins.probes.ablation.options import AblationOptions

KEPT: dict[str, tuple[Part, ...]] = {
    "local": ("shared", "unshared"),
    "off_local": ("off-local",),
    "shared": ("shared",),
    "not_unshared": ("shared", "off-local"),
}
"""Which parts of a relaxed weight each ablation keeps."""


class AblationProbe(AbstractProbe):
    """Evaluates the network with parts of its relaxed weights set to zero.

    * ``local``: the receptive fields alone;
    * ``off_local``: everything but the receptive fields;
    * ``shared``: the nearest convolution, with its one bias per channel: what projecting the network gives;
    * ``not_unshared``: un-sharing taken away, the rest kept;
    * ``random``: in every row of a weight, as many weights as it has local ones, at random.

    Scalars are the loss and each score of the objective of each of them: ``loss_local``, ``accuracy_local``.

    Biases stay as they are except for ``shared`` and ``not_unshared``. What was not relaxed stays as it is. Of a layer that was no
    convolution the local weights are those that its constraint let be other numbers than zero.
    """

    needs = frozenset({"data", "relaxed"})
    sharded = True
    headline = ("{metric}_local", "{metric}_off_local")

    options: AblationOptions

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of an ablation, or of a random mask; rows are masked in place, one after another, which takes nothing."""
        context = rehearsal.context
        kept = AblationProbe(attrs.evolve(self.options, random_masks=0))
        needed = rehearsal.peak(lambda: kept.measure(context))
        if self.options.random_masks:
            x, y = chosen_data(context.required_data, self.options.part, "ablation")

            def masked() -> None:
                weights = {name: weight for name, weight, _ in _weights(context.model)}
                evaluate(with_parameters(context.model, weights), x, y, objective=context.objective)

            needed = max(needed, rehearsal.peak(masked))
        return needed

    def measure(self, context: ProbeContext) -> Measurement:
        """Evaluate every ablation.

        Raises:
            ProbeError: there are no data of the chosen part, or no layer is relaxed.
        """
        x, y = chosen_data(context.required_data, self.options.part, "ablation")
        model = context.model
        require_relaxed_layers(model, "ablation")
        scalars: dict[str, float | None] = {}

        def score(weights: Mapping[str, torch.Tensor]) -> Score:
            return evaluate(with_parameters(model, weights), x, y, objective=context.objective)

        with undisturbed(model), torch.no_grad():
            found = {"full": score({})} | {name: score(dict(_kept(model, kept))) for name, kept in KEPT.items()}
            for name, one in found.items():
                scalars |= named_scores(name, one.loss, one.metrics)
            generator = torch.Generator(x.device).manual_seed(context.seed)
            draws = [score(dict(_random(model, generator))) for _ in range(self.options.random_masks)]
        details: dict[str, Any] = {"data": self.options.part, "samples": len(y), "seed": context.seed}
        if draws:
            drawn = {metric: [draw.metrics[metric] for draw in draws] for metric in draws[0].metrics}
            means = {metric: statistics.fmean(values) for metric, values in drawn.items()}
            scalars |= named_scores("random", statistics.fmean(draw.loss for draw in draws), means)
            main = {"accuracies": drawn["accuracy"]} if "accuracy" in drawn else {"metrics": drawn}
            details["random"] = {"masks": len(draws), **main, "losses": [finite(draw.loss) for draw in draws]}
        units = {name: score_unit(name, context.objective) for name in scalars}
        return Measurement(scalars=scalars, units=units, details=details)


def _kept(model: nn.Module, kept: Collection[Part]) -> Iterator[tuple[str, torch.Tensor]]:
    with_biases = ("shared" in kept) != ("unshared" in kept)  # a bias has no place, so it is neither local nor off-local
    weights = (weight for weight in relaxed_weights(model) if with_biases or not weight.is_bias)
    for (path, layer), group in itertools.groupby(weights, key=lambda weight: (weight.path, weight.layer)):
        own = list(group)
        found = weighted_parts(path, layer, {weight.name: weight.tensor for weight in own}, dict.fromkeys(kept, 1.0))
        yield from ((weight.full_name, found[weight.name]) for weight in own)


def _random(model: nn.Module, generator: torch.Generator) -> Iterator[tuple[str, torch.Tensor]]:
    cuts, shards = cuts_of(model), shards_of(model)
    for name, weight, local in _weights(model):
        if shards is not None and name in cuts:
            _mask_part(weight, local, cuts[name], shards, generator)
        else:
            rows = weight.view(len(weight), -1)
            for row, count in enumerate(local.reshape(len(weight), -1).sum(1).tolist()):
                dropped = torch.randperm(rows.shape[1], device=rows.device, generator=generator)[count:]
                rows[row, dropped] = 0
        yield name, weight


def _mask_part(weight: torch.Tensor, local: torch.Tensor, cut: Cut, shards: Shards, generator: torch.Generator) -> None:
    """Mask what this process holds of a weight: the rows are those of the whole, and all are drawn, as one process does."""
    rows = cut.shape[0]
    width = cut.numbers // rows
    held = [len(cut.among(weight.new_empty(()).expand(width), row * width)) for row in range(rows)]
    counts = shards.totals([float(own.sum()) for own in torch.split(local.reshape(-1), held)])
    for row, (own, count) in enumerate(zip(torch.split(weight.view(-1), held), counts, strict=True)):
        kept = torch.randperm(width, device=weight.device, generator=generator)[: int(count)]
        if len(own):
            dropped = torch.ones(width, dtype=torch.bool, device=weight.device)
            dropped[kept] = False
            own.masked_fill_(cut.among(dropped, row * width), 0)


def _weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
    """Names and copies of the relaxed weights, and which of their numbers are local."""
    for weight in relaxed_weights(model):
        if not weight.is_bias:
            yield weight.full_name, weight.tensor.clone(memory_format=torch.contiguous_format), weight.local()
