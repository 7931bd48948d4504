"""The jobs of a run that its workers have, as far as the workers can be believed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from anarch_core.errors import AnarchError, PluginError, plain
from anarch_core.experiment.events import Event
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.segments import Segment
from anarch_core.experiment.store import RunStore
from anarch_core.plugin.blame import answering, expected, on_behalf_of, origin
from anarch_core.running.deaths import TRIES, Deaths
from anarch_core.segment.stopping import Stop
from anarch_core.workers.base import AbstractWorkers, Crew, Outcome

if TYPE_CHECKING:
    from anarch_core.experiment.events import Job

LONELY = 20.0
"""Seconds without anybody at work, though there is work, after which that is said."""


class Dispatch:
    """Hands jobs to the workers of a run and takes what comes back.

    Args:
        workers: of the run.
        store: its directory.
        stop: whether it was asked to stop.
        say: told in a line if nobody has room for a long time.
        lost: told of segments whose workers are gone, and how, and which are to be tried again.

    Attributes:
        underway: the segments that workers have, by identity.
    """

    def __init__(
        self,
        workers: AbstractWorkers,
        store: RunStore,
        stop: Stop,
        say: Callable[[str], None],
        lost: Callable[[Segment, str], None],
    ) -> None:
        self.underway: dict[str, Segment] = {}
        self._workers, self._store, self._stop, self._say, self._lost = workers, store, stop, say, lost
        self._deaths = Deaths()
        self._own_fault: BaseException | None = None
        self._beside: PluginError | None = None
        self._alone_since: float | None = None

    def open(self, crew: Crew, segments: Mapping[str, Segment]) -> Collection[str]:
        """Let the workers begin; the identities of segments that they have already, from an earlier process of the run."""
        answering(self._workers.open)(crew)
        adopted: Collection[str] = answering(self._workers.adopt, Collection)(tuple(segments))
        for identity in adopted:
            self._require_known(identity, segments, "adopts")
        self.underway.update({identity: segments[identity] for identity in adopted})
        return frozenset(adopted)

    def room(self) -> bool:
        """Whether another job would be taken."""
        with on_behalf_of(origin(self._workers)):
            capacity = self._workers.capacity
        expected(origin(self._workers), "capacity", capacity, int)
        return len(self.underway) < capacity

    def submit(self, job: Job) -> None:
        """Hand over a job."""
        self.underway[job.segment.id] = job.segment
        with self._own_faults():
            answering(self._workers.submit)(job)

    def ended(self) -> list[tuple[Segment, Outcome]]:
        """Wait for something to happen; the jobs that ended, but those that are to be tried again because their workers were lost."""
        if self.underway:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = time.monotonic()
        elif time.monotonic() > self._alone_since + LONELY:
            self._alone_since = float("inf")
            self._say("no worker has room for a segment at the moment; the run waits for one")
        with self._own_faults():
            found: Sequence[Outcome] = answering(self._workers.wait, list, tuple)()
        if self._beside is not None:
            raise self._beside
        ended = []
        for outcome in found:
            expected(origin(self._workers), "wait()", outcome, Outcome)
            self._require_known(outcome.segment, self.underway, "gives an outcome of")
            if outcome.result is not None:
                expected(origin(self._workers), "an outcome", outcome.result, SegmentResult)
                self._require_known(outcome.result.id, [outcome.segment], "gives the result of")
            segment = self.underway.pop(outcome.segment)
            if not outcome.lost:
                ended.append((segment, outcome))
            elif not self._stop():
                how = outcome.error or "its worker is gone"
                if self._deaths.hopeless(self._store.segment(segment.id)):
                    why = f"{how}, for the {TRIES}rd time without getting any further"
                    ended.append((segment, attrs.evolve(outcome, error=why)))
                else:
                    self._lost(segment, how)
        return ended

    def hearing(self, heard: Callable[[Event], None]) -> Callable[[Event], None]:
        """Pass on events of segments that are under way: one that was given up for lost may still be at it, and tell."""
        own = threading.get_ident()

        def pass_on(event: Event) -> None:
            if threading.get_ident() != own:
                msg = f"{origin(self._workers)} tells events in the thread {threading.current_thread().name!r}, not in wait()"
                self._beside = PluginError(msg)
                raise self._beside
            expected(origin(self._workers), "on_event()", event, Event)
            if event.segment in self.underway:
                try:
                    heard(event)
                except BaseException as error:
                    self._own_fault = error
                    raise

        return pass_on

    def stop(self) -> None:
        """Ask all jobs to save their state and end."""
        answering(self._workers.stop)()

    def close(self, *, at_once: bool = False) -> None:
        """End whatever the workers started. That they cannot is said, and changes nothing in what they did."""
        try:
            answering(self._workers.close)(at_once=at_once)
        except AnarchError as error:
            self._say(f"warning: the workers were not closed: {error}")

    @contextmanager
    def _own_faults(self) -> Iterator[None]:
        """Around a call in which workers tell events: what the run itself does wrong with them is no fault of theirs."""
        try:
            yield
        except PluginError as error:
            if self._own_fault is not None and error.__cause__ is self._own_fault:
                raise self._own_fault from None
            raise

    def _require_known(self, identity: object, known: Collection[str], does: str) -> None:
        if not isinstance(identity, str) or identity not in known:
            msg = f"{origin(self._workers)} {does} segment {plain(repr(identity), 50)}, which it was not given"
            raise PluginError(msg)
