"""The probe ``stability``."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from anarch_core.errors import ProbeError
from anarch_core.objective import Metric
from anarch_core.paths import Barrier, interpolate
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext, ProbeRehearsal, finite
from anarch_plugins.probes.stability.options import StabilityOptions


class StabilityProbe(AbstractProbe):
    """Error and loss on the straight line between the network and its twin, which met the batches in another order.

    Scalars: ``<score>_barrier_train`` and ``_test``, how much worse the worst score on the line is than the mean of the ends, in the
    score's unit (Frankle et al. 2020, section 2, there for the error), and ``loss_barrier_train`` and ``_test``, the highest loss less
    that mean. The tensor ``line`` holds the profile, [points, 5]: position, training loss and score, test loss and score.
    """

    needs = frozenset({"data", "twin"})
    headline = ("{metric}_barrier_test",)

    options: StabilityOptions

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of three points: the network between the two is made once."""
        return rehearsal.peak(lambda: StabilityProbe(attrs.evolve(self.options, points=3)).measure(rehearsal.context))

    def measure(self, context: ProbeContext) -> Measurement:
        """Walk from the twin to the network.

        Raises:
            ProbeError: there are no data, or there is no twin.
        """
        data, metric = context.required_data, context.objective.metric
        if context.twin is None:
            msg = "the probe stability needs the network that met the batches in another order, and there is none; add --noise-seeds 0,1"
            raise ProbeError(msg)
        options = self.options
        profile = interpolate(
            context.twin,
            context.model,
            data,
            points=options.points,
            samples=options.samples,
            progress=lambda done, total: context.progress(done, total, "stability"),
        )
        scalars: dict[str, float | None] = {}
        for part, scores in (("train", profile.train), ("test", profile.test)):
            scalars[f"{metric.name}_barrier_{part}"] = _drop(metric, [score.metrics[metric.name] for score in scores])
            scalars[f"loss_barrier_{part}"] = Barrier.of(profile.positions, [score.loss for score in scores]).mean
        reason = profile.train_barrier.not_measured or profile.test_barrier.not_measured
        return Measurement(
            scalars=scalars,
            units={name: context.objective.loss_unit if name.startswith("loss") else metric.unit for name in scalars},
            details={
                "definition": "the worst on the straight line less the mean of the ends",
                "points": options.points,
                "samples": min(options.samples, len(data.y_train)),
                "statistics_shift": profile.statistics_shift,
                **({"not_measured": reason} if reason else {}),
            },
            tensors={"line": profile.tensor(metric.name)},
        )


def _drop(metric: Metric, scores: Sequence[float]) -> float | None:
    """How much worse the worst score is than the mean of the first and the last."""
    mean = (scores[0] + scores[-1]) / 2
    return finite(mean - min(scores) if metric.higher_is_better else max(scores) - mean)
