"""The table of a run that goes on, in a terminal: as many of its lines as there is room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from anarch_core.experiment.summary import SummaryTable
from anarch_core.running.standing import Outlook, Standing

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment as Piece

    from anarch_core.experiment.results import Results
    from anarch_core.experiment.segments import Segment

FRAME = 4
"""Lines of a table beside its rows."""

FEW = 12
"""Rows that are worth more than the columns that do not fit beside the first ones."""


class StandingTable:
    """Drawn again many times a second, which costs little where nothing has changed.

    Args:
        standing: of the run.
        below: how many lines stand below the table.
    """

    def __init__(self, standing: Standing, below: Callable[[], int]) -> None:
        self._standing, self._below = standing, below
        self._outlook: Outlook | None = None
        self._laid_out: tuple[Outlook, int, int, list[list[Piece]]] | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to be seen."""
        return self._outlook is not None

    def found(self, results: Results, *, searching: bool) -> None:
        """These are the results by now."""
        self._standing.found(results, searching=searching)
        self.refresh()

    def scored(self, segment: Segment, row: Mapping[str, float | None]) -> None:
        """A row of the history of a segment."""
        self._standing.scored(segment, row)

    def ended(self, segment: Segment, outcome: str) -> None:
        """A segment has ended."""
        self._standing.ended(segment, outcome)

    def refresh(self) -> None:
        """Look again at what the run has come to."""
        found = self._standing.outlook()  # here, where nothing happens meanwhile, and not where it is drawn: on another thread
        if found != self._outlook:
            self._outlook = found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines that fit above what stands below."""
        from rich.segment import Segment as Piece

        outlook = self._outlook
        if outlook is None:
            return
        width, height = options.max_width, options.size.height - self._below() - 1
        known = self._laid_out
        if known is None or known[0] is not outlook or known[1:3] != (width, height):
            known = self._laid_out = (outlook, width, height, _lines(outlook, console, options, height))
        for line in known[3]:
            yield from line
            yield Piece.line()


def _lines(outlook: Outlook, console: Console, options: ConsoleOptions, height: int) -> list[list[Piece]]:
    """The table, columns that do not fit beside the first ones below them if there is room, what is left out, and the caption likewise."""
    from rich.text import Text

    options = options.update(height=None)
    tables = SummaryTable(outlook.content).split(options.max_width)
    rows, shown = len(outlook.content.lines), len(tables)
    while shown > 1 and height // shown - FRAME < min(rows, FEW):
        shown -= 1
    most = height // shown - FRAME
    if most < rows or outlook.notes:
        most = (height - 1) // shown - FRAME
    if most < 1:
        return []
    content, rest = outlook.window(most)
    lines = [line for columns in tables[:shown] for line in console.render_lines(SummaryTable(content).part(columns), options, pad=False)]
    if rest:
        lines += console.render_lines(Text(rest, style="dim", no_wrap=True, overflow="ellipsis"), options, pad=False)
    caption = console.render_lines(Text(content.caption, style="dim italic"), options, pad=False)
    return lines + caption if len(lines) + len(caption) <= height else lines
