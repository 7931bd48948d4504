"""What a run says while it works: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import contextlib
import io
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TextIO

from anarch_core.running.pace import Pace

if TYPE_CHECKING:
    from rich.console import Console

    from anarch_core.experiment.segments import Segment

LINE_EVERY = 10.0
"""Seconds between two lines where nothing else is to be said."""


MOST_BARS, WAITING = 20, 3
"""Segments that have a bar at once, which are drawn anew several times a second; how many of those that wait for their turn."""

LEFT_EVERY = 0.3
"""Seconds between two estimates of the time that is left, beside bars."""


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

    @abstractmethod
    def trained(self, segment: Segment, iteration: int, row: Mapping[str, float | None] | None) -> None:
        """A segment has taken so many steps; ``row`` is the history row of the epoch, if one ended."""

    @abstractmethod
    def measuring(self, segment: Segment, what: str) -> None:
        """A segment is being evaluated or probed."""

    @abstractmethod
    def ended(self, segment: Segment, outcome: str, *, before: bool = False) -> None:
        """A segment is finished, failed or skipped: ``outcome`` in a few words; ``before`` if it was so when the run began."""

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


class Listener(io.TextIOBase):
    """A stream whose reader may go: a terminal that is closed, or the end of a pipe, is no reason to end a run.

    Args:
        stream: what is written to as long as that works.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or not."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or not."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """As the stream."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """As the stream."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the stream."""
        return self._stream.encoding


class Lines(AbstractProgress):
    """A line per segment, and one every ten seconds."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._last = time.monotonic()

    def __exit__(self, *exc_info: object) -> None:
        """Nothing is left open."""

    def planned(self, segments: Sequence[Segment]) -> None:
        """Remember the totals."""
        self._pace.planned(segments)

    def placed(self, segment: Segment, where: str) -> None:
        """Print a line if it is time for one."""
        self._pace.placed(segment, where)
        self._line(segment, "")

    def lost(self, segment: Segment) -> None:
        """Count it out; the run says why."""
        self._pace.lost(segment)

    def started(self, segment: Segment) -> None:
        """Say nothing: a line follows soon enough."""
        self._pace.elsewhere(segment)

    def trained(self, segment: Segment, iteration: int, row: Mapping[str, float | None] | None) -> None:
        """Print a line if it is time for one."""
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

    def _line(self, segment: Segment, state: str) -> None:
        if time.monotonic() - self._last >= LINE_EVERY:
            percent = 100 * self._pace.steps // max(self._pace.iterations, 1)
            told = ", ".join(text for text in (self._pace.place(segment.id), state) if text)
            self.say(f"{percent:3d} % done{self._pace.queue()}{self._pace.remaining()}; {segment.title}: {told}")

    def say(self, text: str) -> None:
        """Print to standard error."""
        self._last = time.monotonic()
        print(text, file=Listener(sys.stderr), flush=True)


class Bars(AbstractProgress):
    """A bar for the run and one for each segment under way."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._pace = Pace()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), TextColumn("{task.fields[place]}", markup=False), BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False), console=console, transient=True,
        )  # fmt: skip
        self._total = self._progress.add_task("preparing", total=None, note="", place="")
        self._tasks: dict[str, Any] = {}
        self._estimated = -LEFT_EVERY

    def __enter__(self) -> Bars:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop drawing."""
        self._progress.stop()

    def planned(self, segments: Sequence[Segment]) -> None:
        """Set the totals."""
        self._pace.planned(segments)
        self._draw()

    def placed(self, segment: Segment, where: str) -> None:
        """Write it beside its bar; of many that wait for their turn, the first have one."""
        self._pace.placed(segment, where)
        if segment.id in self._tasks or sum(waiting in self._tasks for waiting in self._pace.waiting) < WAITING:
            self._bar(segment)
        self._draw()

    def lost(self, segment: Segment) -> None:
        """Remove its bar; the run says why."""
        self._pace.lost(segment)
        self._without_bar(segment)
        self._draw()

    def started(self, segment: Segment) -> None:
        """Add a bar."""
        self._pace.elsewhere(segment)
        self._bar(segment)

    def _bar(self, segment: Segment, **changed: Any) -> None:
        """Draw a bar, if there is room for one."""
        if segment.id not in self._tasks and len(self._tasks) < MOST_BARS:
            self._tasks[segment.id] = self._progress.add_task(segment.title, total=segment.settings.iterations, note="", place="")
        if segment.id in self._tasks:
            self._progress.update(self._tasks[segment.id], place=self._pace.place(segment.id), **changed)

    def _without_bar(self, segment: Segment) -> None:
        if segment.id in self._tasks:
            self._progress.remove_task(self._tasks.pop(segment.id))

    def trained(self, segment: Segment, iteration: int, row: Mapping[str, float | None] | None) -> None:
        """Move its bar."""
        self._pace.trained(segment, iteration)
        note = latest(row)
        self._bar(segment, completed=iteration, **({"note": note} if note else {}))
        self._draw()

    def measuring(self, segment: Segment, what: str) -> None:
        """Write it beside its bar."""
        self._pace.elsewhere(segment)
        self._bar(segment, note=what)

    def ended(self, segment: Segment, outcome: str, *, before: bool = False) -> None:
        """Remove its bar and print how it ended."""
        name = self._pace.named(segment)
        self._pace.end(segment, before=before)
        self._without_bar(segment)
        if not before:
            self.say(f"{name}: {outcome}")
        self._draw()

    def say(self, text: str) -> None:
        """Print above the bars."""
        self._progress.console.print(text, markup=False, highlight=False)

    def _draw(self) -> None:
        pace, now = self._pace, time.monotonic()
        description, queue = f"{pace.ended} of {len(pace.segments)} segments", pace.queue().removeprefix(", ")
        self._progress.update(self._total, description=description, completed=pace.steps, total=pace.iterations, place=queue)
        if now >= self._estimated + LEFT_EVERY:
            self._estimated = now
            self._progress.update(self._total, note=pace.remaining().removeprefix(", "))


def latest(row: Mapping[str, float | None] | None) -> str:
    """What a row of a history says of the training score, in few words; empty where it says nothing."""
    for name, value in (row or {}).items():
        if name.startswith("train_") and name != "train_loss" and value is not None:
            return f"{name.replace('_', ' ')} {value:.4g}"
    return ""
