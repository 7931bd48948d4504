"""What a run shows on a terminal while it works: the table of results as it fills, and bars for what is under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from anarch_core.running.pace import Pace
from anarch_core.running.progress import MOST_BARS, WAITING, AbstractProgress, latest
from anarch_core.running.standing import Standing
from anarch_core.running.standing_table import StandingTable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from anarch_core.experiment.results import Results
    from anarch_core.experiment.segments import Segment

LEFT_EVERY = 0.3
"""Seconds between two estimates of the time that is left, beside bars."""

DRAWN_EVERY = 0.1
"""Seconds between two drawings."""


class Drawing:
    """Draws anew while the run works.

    A live display of rich that draws on a thread of its own may write over what is printed meanwhile, where its number of lines changes.
    Here printing and drawing wait for one another.

    Args:
        shown: what is drawn.
        console: where.

    Attributes:
        shown: as above.
    """

    def __init__(self, shown: RenderableType, console: Console) -> None:
        from rich.live import Live

        self.shown = shown
        self._live = Live(shown, console=console, auto_refresh=False, transient=True)
        self._one_at_a_time, self._over = threading.RLock(), threading.Event()
        self._thread = threading.Thread(target=self._draw, name="anarch display", daemon=True)

    def begin(self) -> None:
        """From now on."""
        self._live.start()
        self._thread.start()

    def end(self) -> None:
        """Draw no more, and leave nothing."""
        self._over.set()
        with self._one_at_a_time:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print above."""
        with self._one_at_a_time:
            self._live.console.print(text, markup=False, highlight=False)

    def _draw(self) -> None:
        while not self._over.wait(DRAWN_EVERY):
            with self._one_at_a_time:
                if not self._over.is_set():
                    self._live.refresh()


class Bars(AbstractProgress):
    """The table of results as it fills, below it a bar for the run and one for each segment under way."""

    def __init__(self, console: Console) -> None:
        from rich.console import Group
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._pace = Pace()
        self._table = StandingTable(Standing(self._pace), below=lambda: len(self._progress.tasks) + 1)
        self._progress = Progress(
            TextColumn("{task.description}", markup=False), TextColumn("{task.fields[place]}", markup=False), BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"), TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False), console=console, auto_refresh=False,
        )  # fmt: skip
        self._drawing = Drawing(Group(self._table, self._progress), console)
        self._total = self._progress.add_task("preparing", total=None, note="", place="")
        self._tasks: dict[str, Any] = {}
        self._estimated = -LEFT_EVERY

    def __enter__(self) -> Bars:
        """Start drawing."""
        self._drawing.begin()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop drawing."""
        self._drawing.end()

    def planned(self, segments: Sequence[Segment]) -> None:
        """Set the totals."""
        self._pace.planned(segments)
        self._draw()

    def found(self, results: Results, *, searching: bool = False) -> None:
        """Fill the table."""
        self._table.found(results, searching=searching)

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

    def scored(self, segment: Segment, row: Mapping[str, float | None]) -> None:
        """Write it into the table."""
        self._table.scored(segment, row)

    def _bar(self, segment: Segment, **changed: Any) -> None:
        """Draw a bar, if there is room for one; there is for fewer below the table."""
        most = min(MOST_BARS, max(1, self._progress.console.height // 3)) if self._table else MOST_BARS
        if segment.id not in self._tasks and len(self._tasks) < most:
            self._tasks[segment.id] = self._progress.add_task(segment.title, total=segment.settings.iterations, note="", place="")
        if segment.id in self._tasks:
            self._progress.update(self._tasks[segment.id], place=self._pace.place(segment.id), **changed)

    def _without_bar(self, segment: Segment) -> None:
        if segment.id in self._tasks:
            self._progress.remove_task(self._tasks.pop(segment.id))

    def trained(self, segment: Segment, iteration: int, row: Mapping[str, float | None] | None) -> None:
        """Move its bar."""
        self._pace.trained(segment, iteration)
        if row:
            self._table.scored(segment, row)
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
            self._table.ended(segment, outcome)
            self.say(f"{name}: {outcome}")
        self._draw()

    def say(self, text: str) -> None:
        """Print above the bars."""
        self._drawing.say(text)

    def _draw(self) -> None:
        pace, now = self._pace, time.monotonic()
        description, queue = f"{pace.ended} of {len(pace.segments)} segments", pace.queue().removeprefix(", ")
        self._progress.update(self._total, description=description, completed=pace.steps, total=pace.iterations, place=queue)
        if now >= self._estimated + LEFT_EVERY:
            self._estimated = now
            self._progress.update(self._total, note=pace.remaining().removeprefix(", "))
        self._table.refresh()
