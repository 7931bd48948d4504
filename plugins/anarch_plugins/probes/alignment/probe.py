"""The probe ``alignment``."""

from __future__ import annotations

from typing import Any

import attrs
from torch import nn

from anarch_core.alignment import Alignment, align
from anarch_core.errors import ProbeError
from anarch_core.network import copied
from anarch_core.objective import Metric
from anarch_core.paths import Barrier, Profile, interpolate
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext, ProbeRehearsal, finite
from anarch_plugins.probes.alignment.options import AlignmentOptions

EXAMPLES = 4
"""Training samples on which channels are followed, and on which the permuted network is seen to compute the same."""

DEFINITION = (
    "highest excess over the chord between the ends (of the score: by which it is worse), on the straight line from the network to the one "
    "of the run's first seed; 'after': with the network's channels permuted by weight matching"
)


class AlignmentProbe(AbstractProbe):
    """Walks the straight line to the network of the run's first seed, as both are and with channels matched.

    Scalars, ``before`` and ``after`` matching: the barrier over the chord in training loss (``barrier_*``), in test loss
    (``test_barrier_*``) and in the test score (``<score>_barrier_*``, positive where it is worse in between), None where a loss on the line
    is not finite; the Euclidean distance of all parameters (``distance_*``); and which percentage of the channels that can be permuted
    stands elsewhere than before (``moved``). Batch-norm statistics are permuted, and estimated afresh at every point of the line.

    Tensors hold the profiles: position, training loss and score, test loss and score.
    """

    needs = frozenset({"data", "sibling"})
    headline = ("barrier_before", "barrier_after")

    options: AlignmentOptions

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of the permuted copy and three points of the line; matching holds the copy and parts of one layer."""
        context = rehearsal.context
        return rehearsal.peak(lambda: self._walk(copied(context.model), _sibling(context), context, points=3))

    def measure(self, context: ProbeContext) -> Measurement:
        """Match the channels and walk twice.

        Raises:
            ProbeError: there are no data or no other network, or the two cannot be matched.
        """
        sibling, data = _sibling(context), context.required_data
        example = data.inputs("train")[:EXAMPLES]
        if example.is_floating_point():
            example = example.to(next((one.dtype for one in context.model.parameters() if one.is_floating_point()), example.dtype))
        found = align(context.model, sibling, example, seed=context.seed, restarts=self.options.restarts)
        before = self._walk(context.model, sibling, context, points=self.options.points)
        after = self._walk(found.network, sibling, context, points=self.options.points, done=self.options.points)
        metric, unit = context.objective.metric, context.objective.loss_unit
        scalars: dict[str, float | None] = {}
        for when, profile, distance in (("before", before, found.before), ("after", after, found.after)):
            scalars[f"barrier_{when}"] = profile.train_barrier.chord
            scalars[f"test_barrier_{when}"] = profile.test_barrier.chord
            scalars[f"{metric.name}_barrier_{when}"] = _score_barrier(profile, metric).chord
            scalars[f"distance_{when}"] = finite(distance)
        scalars["moved"] = 100 * found.moved / found.channels
        kinds = {"barrier": unit, "test_barrier": unit, f"{metric.name}_barrier": metric.unit}
        units = {f"{kind}_{when}": kinds[kind] for kind in kinds for when in ("before", "after")} | {"moved": "%"}
        details: dict[str, Any] = {
            "definition": DEFINITION,
            "samples": min(self.options.samples, len(data.y_train)),
            "points": self.options.points,
            "paths": {"before": before.details(), "after": after.details()},
            **_matching(found),
        }
        tensors = {"before": before.tensor(metric.name), "after": after.tensor(metric.name)}
        return Measurement(scalars=scalars, units=units, details=details, tensors=tensors)

    def _walk(self, network: nn.Module, sibling: nn.Module, context: ProbeContext, *, points: int, done: int = 0) -> Profile:
        return interpolate(
            network,
            sibling,
            context.required_data,
            points=points,
            samples=self.options.samples,
            seed=context.seed,
            progress=lambda now, total: context.progress(done + now, 2 * total, "alignment"),
        )


def _sibling(context: ProbeContext) -> nn.Module:
    if context.sibling is None:
        msg = (
            "the probe alignment needs the same network of another seed: run several seeds, with --seeds 0,1, or give one with --sibling "
            "FILE or ProbeContext(sibling=...)"
        )
        raise ProbeError(msg)
    return context.sibling


def _score_barrier(profile: Profile, metric: Metric) -> Barrier:
    sign = -1 if metric.higher_is_better else 1
    return Barrier.of(profile.positions, [sign * score.metrics[metric.name] for score in profile.test])


def _matching(found: Alignment) -> dict[str, Any]:
    return {
        "layers": {path: {name: finite(value) for name, value in attrs.asdict(each).items()} for path, each in found.layers.items()},
        "groups": {name: len(order) for name, order in found.permutations.items()},
        "sweeps": list(found.sweeps),
        "not_permuted": dict(found.pinned),
    }
