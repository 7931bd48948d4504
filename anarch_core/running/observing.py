"""What a run tells its observers: from what its segments say, and from what earlier processes left, to the events of the interface."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.config.files import to_toml
from anarch_core.config.run_config import RunConfig
from anarch_core.experiment.segment_result import Notes, SegmentResult
from anarch_core.experiment.segments import Segment
from anarch_core.experiment.store import RunStore
from anarch_core.files.tables import read_table
from anarch_core.observer.base import AbstractObserver
from anarch_core.observer.events import (
    EpochDone,
    Event,
    Measured,
    RunBegun,
    RunFinished,
    SegmentFailed,
    SegmentFinished,
    SegmentNode,
    SegmentSkipped,
    SegmentsPlanned,
    SegmentStarted,
    SwitchFound,
    Warned,
)
from anarch_core.plugin.blame import origin
from anarch_core.plugin.registry import Registry
from anarch_core.running.audience import Audience

if TYPE_CHECKING:
    from anarch_core.experiment import events
    from anarch_core.experiment.results import Unfinished

Row = Mapping[str, Any]


def observers(config: RunConfig, registry: Registry) -> list[AbstractObserver]:
    """The observers that a run names.

    Raises:
        AnarchError: one does not take its options, or cannot work here.
    """
    from anarch_core.experiment.context import create

    return [create(registry, "observer", spec, config) for spec in config.observe]


class Observing:
    """Tells the observers of a run.

    Args:
        listening: the observers.
        iterations_per_epoch: optimizer steps per epoch.
        say: told in a line what became of one.
    """

    def __init__(self, listening: Sequence[AbstractObserver], iterations_per_epoch: int, say: Callable[[str], None]) -> None:
        self._audience = Audience([(origin(observer), observer) for observer in listening], say)
        self._unit = iterations_per_epoch
        self._nodes: dict[str, SegmentNode] = {}
        self._begun: set[str] = set()
        self._reached: dict[str, int] = {}
        self._workers: dict[str, str] = {}

    def begun(self, config: RunConfig, store: RunStore, *, resumed: bool) -> None:
        """The run directory says what is run, and nothing stands against it any more."""
        if self._audience:
            environment = read_table(store.environment_file)
            run, settings = str(environment.get("run") or environment.get("started")), tomllib.loads(to_toml(config))
            self._tell(RunBegun(run=run, path=str(store.path.absolute()), config=settings, environment=environment, resumed=resumed))

    def planned(self, segments: Sequence[Segment]) -> None:
        """These are to be trained."""
        if self._audience:
            self._nodes = {segment.id: _node(segment, self._unit) for segment in segments}
            self._tell(SegmentsPlanned(segments=tuple(self._nodes.values())))

    def heard(self, event: events.Event) -> None:
        """Something happened in a segment."""
        if not self._audience:
            return
        node, value = self._nodes[event.segment], event.value
        if event.kind == "placed":
            self._workers[node.id] = value
        elif event.kind == "begun":
            self._begun.add(node.id)
            self._reached[node.id] = value["iteration"]
            self._audience.tell(_Past(node, value["iteration"], value["rows"], value["notes"], worker=self._workers.get(node.id)))
        elif event.kind in ("scored", "trained", "measured") and node.id not in self._begun:
            return  # of one that workers have from an earlier process, or that is only measured, all is told when it has ended
        elif event.kind == "scored":
            self._tell(_row(node, value))
        elif event.kind == "trained" and value[1] is not None:
            self._reached[node.id] = value[0]
            self._tell(_row(node, value[1]))
        elif event.kind == "measured":
            self._tell(Measured(segment=node, step=node.first_step + self._reached[node.id], **value))
        elif event.kind == "switch":
            self._tell(SwitchFound(segment=node, iteration=value, epoch=value / self._unit))
        elif event.kind == "warning":
            self._tell(Warned(segment=node, text=value))

    def lost(self, segment: Segment) -> None:
        """Whoever trained a segment is gone; who does next is told when it begins again."""
        self._workers.pop(segment.id, None)

    def finished(self, segment: Segment, result: SegmentResult) -> None:
        """A segment has a result; one that was not trained in this process is told whole."""
        if not self._audience:
            return
        node = self._nodes[segment.id]
        if node.id in self._begun:
            self._tell(_finished(node, result, earlier=False))
        else:
            self._audience.tell(_Past(node, 0, result.history, result, result))

    def failed(self, segment: Segment, error: str) -> None:
        """A segment ended with an error."""
        if self._audience:
            self._tell(SegmentFailed(segment=self._nodes[segment.id], error=error))

    def skipped(self, segment: Segment, why: str) -> None:
        """A segment will not be trained."""
        if self._audience:
            self._tell(SegmentSkipped(segment=self._nodes[segment.id], error=why))

    def said(self, text: str) -> None:
        """A line about the run."""
        self._tell(Warned(text=text))

    def over(
        self,
        status: str,
        store: RunStore,
        finished: Sequence[str],
        failed: Mapping[str, Unfinished],
        skipped: Mapping[str, Unfinished],
        hurry: Callable[[], bool],
    ) -> None:
        """The run has ended; wait a little for the observers, unless there is ``hurry``."""
        without = [{identity: segment.error for identity, segment in some.items()} for some in (failed, skipped)]
        results = str(store.results_file.absolute())
        self._tell(RunFinished(status=status, results=results, finished=tuple(finished), failed=without[0], skipped=without[1]))
        self._audience.close(hurry)

    def _tell(self, event: Event) -> None:
        self._audience.tell((event,))


@attrs.frozen
class _Past:
    """The beginning of a segment's story, and what earlier processes did of it: with a result, all of it."""

    node: SegmentNode
    iteration: int
    rows: Sequence[Row]
    notes: Notes | SegmentResult
    result: SegmentResult | None = None
    worker: str | None = None

    def __iter__(self) -> Iterator[Event]:
        node, unit = self.node, self.node.iterations_per_epoch
        whole, rest = divmod(self.iteration, unit)
        epoch, step = self.iteration / unit if rest else whole, node.first_step + self.iteration
        earlier = self.result is not None
        yield SegmentStarted(segment=node, iteration=self.iteration, epoch=epoch, step=step, worker=self.worker, earlier=earlier)
        for row in self.rows[:1]:
            yield _row(node, row, earlier=True)
        yield from self._measured("start", node.first_step)
        for row in self.rows[1:]:
            step = (told := _row(node, row, earlier=True)).step
            yield told
        yield from self._measured("end", step)
        yield from self._measured("average", step)
        if self.result is not None:
            yield _finished(node, self.result, earlier=True)

    def _measured(self, moment: str, step: int) -> Iterator[Event]:
        found, notes = self.notes.probes, self.notes.probe_notes
        for probe in dict.fromkeys([*found, *notes]):
            values, note = found.get(probe, {}).get(moment), notes.get(probe, {}).get(moment)
            if values is not None or note is not None:
                yield Measured(segment=self.node, probe=probe, moment=moment, step=step, values=values or {}, note=note, earlier=True)


def _node(segment: Segment, iterations_per_epoch: int) -> SegmentNode:
    described = segment.describe()
    return SegmentNode(
        id=segment.id,
        title=segment.title,
        kind=segment.kind,
        seed=segment.seed,
        noise=segment.noise,
        relaxation=segment.relaxation,
        parent=described["parent"],
        parent_iteration=described["parent_iteration"],
        switch_epoch=described["switch_epoch"],
        first_step=segment.age,
        iterations=segment.settings.iterations,
        iterations_per_epoch=iterations_per_epoch,
        settings={name: described[name] for name in ("task", "settings", "transition")},
    )


def _row(node: SegmentNode, row: Row, *, earlier: bool = False) -> EpochDone:
    iteration = round(row["epoch"] * node.iterations_per_epoch)
    return EpochDone(segment=node, epoch=row["epoch"], iteration=iteration, step=node.first_step + iteration, row=row, earlier=earlier)


def _finished(node: SegmentNode, result: SegmentResult, *, earlier: bool) -> SegmentFinished:
    told = {name: value for name, value in result.to_json().items() if name not in ("history", "probe_details")}
    return SegmentFinished(segment=node, result=told, earlier=earlier)
