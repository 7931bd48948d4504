"""What has become of the segments of a run: finished, failed, skipped, or not yet; and which of the others can be trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from anarch_core.experiment.inventory import Inventory
from anarch_core.experiment.owing import Owing, asked_probes, compared, owing, with_probes
from anarch_core.experiment.results import ObjectiveRecord, Results, Unfinished
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.segments import Segment
from anarch_core.objective.base import Metric
from anarch_core.schedule import Moment

if TYPE_CHECKING:
    from anarch_core.experiment.context import RunContext


class Fates:
    """Notes what became of segments, by identity, and answers by it.

    Args:
        context: of the run.
        running: identities of the segments that workers have, at any time.

    Attributes:
        finished: results.
        owing: what finished ones do not have of what is asked for.
        failed: those that were given up.
        skipped: those that start from what will never be there.
    """

    def __init__(self, context: RunContext, running: Collection[str]) -> None:
        self._context, self._running = context, running
        self._probes = asked_probes(context.config, context.registry)
        self.finished: dict[str, SegmentResult] = {}
        self.owing: dict[str, Owing] = {}
        self.failed: dict[str, Unfinished] = {}
        self.skipped: dict[str, Unfinished] = {}

    def settled(self, segment: Segment) -> bool:
        """Whether nothing is to be done for a segment any more."""
        done = segment.id in self.finished and segment.id not in self.owing
        return done or segment.id in self.failed or segment.id in self.skipped

    def ready(self, segment: Segment) -> bool:
        """Whether what a segment starts from is there."""
        parent = segment.parent
        return (
            parent is None or segment.leaves is None or self._context.store.segment(parent.id).snapshot(segment.leaves.iteration).exists()
        )

    def never(self, segment: Segment) -> str | None:
        """Why what a segment starts from, which is not there, will never be; None if it may."""
        parent = segment.parent
        if parent is None or segment.leaves is None:
            return None
        if parent.id in self.failed or parent.id in self.skipped:
            return f"{parent.title} did not get there"
        if parent.id not in self.finished or parent.id in self._running or parent.id in self.owing:
            return None
        how = self.finished[parent.id].ended_before(segment.leaves.iteration)
        return f"the snapshot of {parent.title} is gone" if how is None else f"{parent.title} {how}"

    def owed(self, segment: Segment, left: Inventory, keep: Collection[int], companions: Mapping[str, Segment]) -> Owing:
        """What a finished segment does not have of what is asked for.

        Args:
            segment: the segment.
            left: what there is of it.
            keep: iterations at which its network is wanted.
            companions: by name, segments that it is compared with.
        """
        return owing(
            self.finished[segment.id],
            left,
            keep=keep,
            keep_optimizer=self._context.config.optimizer_state == "carry",
            probes=compared(self._probes, self._context.probes, companions),
            moments=self._context.probe_moments(segment),
            schedule=self._context.schedule,
        )

    def answer(self, identity: str) -> SegmentResult:
        """The result of a finished segment, as far as it is asked for and not of other options."""
        stale = self.owing[identity].probes if identity in self.owing else ()
        result, epoch = self.finished[identity], self._context.iterations_per_epoch
        moments = {str(Moment.parse(text, epoch)) for text in self._context.config.probe_at}
        return with_probes(result, [probe for probe in self._context.probes if probe not in stale], moments)

    def write(self, status: str, planned: Collection[str]) -> Results:
        """Write the results so far.

        Args:
            status: of the run.
            planned: identities of its segments, in the order of the tree.
        """
        config, objective = self._context.config, self._context.data.objective
        results = Results(
            path=self._context.store.path,
            data=config.data,
            model=config.model or "",
            objective=ObjectiveRecord.of(config.objective, objective),
            status=status,
            segments=tuple(self.answer(identity) for identity in planned if identity in self.finished),
            planned=len(planned),
            failed=self.failed,
            skipped=self.skipped,
            headlines={name: probe.headlines(objective) for name, probe in self._context.probes.items()},
        )
        results.write()
        return results


def in_words(result: SegmentResult, metric: Metric) -> str:
    """How a segment that was trained ended."""
    if result.diverged:
        return f"diverged in epoch {result.diverged_epoch}"
    reached = ", ".join(f"{part} {metric.text(result.score('final', f'{part}_{metric.name}'))}" for part in ("train", "test"))
    text = f"{reached} ({result.seconds:.0f} s)"
    return f"{text}; {result.ended}" if result.stopped_early else text
