"""What is told of a run while it works, and lines that say it."""

from __future__ import annotations

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from anarch_core.running.coming import coming
from anarch_core.running.listener import Listener
from anarch_core.running.pace import Pace

if TYPE_CHECKING:
    from anarch_core.experiment.results import Results
    from anarch_core.experiment.segments import Segment

LINE_EVERY = 10.0
"""Seconds between two lines where nothing else is to be said."""


MOST_BARS, WAITING = 20, 3
"""Segments that have a bar at once, which are drawn anew several times a second; how many of those that wait for their turn."""


class AbstractProgress(AbstractContextManager["AbstractProgress"], ABC):
    """Told what a run does. A context manager."""

    @abstractmethod
    def planned(self, segments: Sequence[Segment]) -> None:
        """These segments are to be trained; again when a schedule finds more."""

    def placed(self, segment: Segment, where: str) -> None:
        """It is known who trains a segment, or in which queue it waits: ``where`` in words; nothing is done with that by default."""

    def lost(self, segment: Segment) -> None:
        """Whoever trained a segment is gone, and it is tried again; nothing is done with that by default."""

    @abstractmethod
    def started(self, segment: Segment) -> None:
        """A segment is being trained."""

    def scored(self, segment: Segment, row: Mapping[str, float | None]) -> None:
        """A row of the history of a segment from before its first step here: of its start, or the last one that an earlier process took.

        Nothing is done with that by default.
        """

    @abstractmethod
    def trained(self, segment: Segment, iteration: int, row: Mapping[str, float | None] | None) -> None:
        """A segment has taken so many steps; ``row`` is the history row of the epoch, if one ended."""

    @abstractmethod
    def measuring(self, segment: Segment, what: str) -> None:
        """A segment is being evaluated or probed."""

    @abstractmethod
    def ended(self, segment: Segment, outcome: str, *, before: bool = False) -> None:
        """A segment is finished, failed or skipped: ``outcome`` in a few words; ``before`` if it was so when the run began."""

    def found(self, results: Results, *, searching: bool = False) -> None:
        """The results by now, when training begins and whenever they have changed; nothing is done with them by default.

        Args:
            results: of the segments that have ended.
            searching: whether a schedule may find more segments.
        """

    @abstractmethod
    def say(self, text: str) -> None:
        """Print a line."""


class Silent(AbstractProgress):
    """Says nothing."""

    def __exit__(self, *exc_info: object) -> None:
        """Do nothing."""

    def planned(self, segments: Sequence[Segment]) -> None:
        """Do nothing."""

    def started(self, segment: Segment) -> None:
        """Do nothing."""

    def trained(self, segment: Segment, iteration: int, row: Mapping[str, float | None] | None) -> None:
        """Do nothing."""

    def measuring(self, segment: Segment, what: str) -> None:
        """Do nothing."""

    def ended(self, segment: Segment, outcome: str, *, before: bool = False) -> None:
        """Do nothing."""

    def say(self, text: str) -> None:
        """Do nothing."""


class Lines(AbstractProgress):
    """A line for what is coming, one per segment that ends, and one every ten seconds."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._last = time.monotonic()
        self._announced: set[str] | None = None

    def __exit__(self, *exc_info: object) -> None:
        """Nothing is left open."""

    def planned(self, segments: Sequence[Segment]) -> None:
        """Remember the totals."""
        self._pace.planned(segments)

    def placed(self, segment: Segment, where: str) -> None:
        """Print a line if it is time for one."""
        self._announce()
        self._pace.placed(segment, where)
        self._line(segment, "")

    def lost(self, segment: Segment) -> None:
        """Count it out; the run says why."""
        self._pace.lost(segment)

    def started(self, segment: Segment) -> None:
        """Say nothing of it: a line follows soon enough."""
        self._announce()
        self._pace.elsewhere(segment)

    def trained(self, segment: Segment, iteration: int, row: Mapping[str, float | None] | None) -> None:
        """Print a line if it is time for one."""
        self._announce()
        self._pace.trained(segment, iteration)
        self._line(segment, f"{100 * iteration // segment.settings.iterations} %")

    def measuring(self, segment: Segment, what: str) -> None:
        """Print a line if it is time for one."""
        self._pace.elsewhere(segment)
        self._line(segment, what)

    def ended(self, segment: Segment, outcome: str, *, before: bool = False) -> None:
        """Print how it ended."""
        name = self._pace.named(segment)
        self._pace.end(segment, before=before)
        if not before:
            self.say(f"[{self._pace.ended}/{len(self._pace.segments)}] {name}: {outcome}")

    def found(self, results: Results, *, searching: bool = False) -> None:
        """Print what is coming, once; what is found later is told when the run goes on after that."""
        if self._announced is None:
            self._announced = set()
            self._announce(searching=searching)

    def _announce(self, *, searching: bool = False) -> None:
        """Print what is coming that was not told yet."""
        if self._announced is not None and len(self._announced) < len(self._pace.segments):
            new = [segment for segment in self._pace.segments if segment.id not in self._announced]
            self._announced.update(segment.id for segment in new)
            text = coming([segment for segment in new if not self._pace.over(segment)], searching=searching)
            if text:
                self.say(text)

    def _line(self, segment: Segment, state: str) -> None:
        if time.monotonic() - self._last >= LINE_EVERY:
            percent = 100 * self._pace.steps // max(self._pace.iterations, 1)
            told = ", ".join(text for text in (self._pace.place(segment.id), state) if text)
            self.say(f"{percent:3d} % done{self._pace.queue()}{self._pace.remaining()}; {segment.title}: {told}")

    def say(self, text: str) -> None:
        """Print to standard error."""
        self._last = time.monotonic()
        print(text, file=Listener(sys.stderr), flush=True)


def latest(row: Mapping[str, float | None] | None) -> str:
    """What a row of a history says of the training score, in few words; empty where it says nothing."""
    for name, value in (row or {}).items():
        if name.startswith("train_") and name != "train_loss" and value is not None:
            return f"{name.replace('_', ' ')} {value:.4g}"
    return ""
