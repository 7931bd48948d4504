"""What a run says in a notebook: one display that is drawn anew while it works, and a line of it that stays."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.display import Table
from anarch_core.errors import MissingDependencyError, plain
from anarch_core.html import Html, element, join
from anarch_core.machine import human_duration
from anarch_core.running.pace import Pace
from anarch_core.running.progress import MOST_BARS, WAITING, AbstractProgress, latest
from anarch_core.running.standing import MISSED, Standing

if TYPE_CHECKING:
    from anarch_core.experiment.results import Results
    from anarch_core.experiment.segments import Segment

MOST_ROWS = 30
"""Rows of the table of results that are shown while the run works."""

DRAWN_EVERY = 0.3
"""Seconds between two drawings; a notebook stores and sends every one of them."""

UNUSUAL = ("warning", *MISSED, "diverged")
"""How what is said begins that is not folded away."""


def in_notebook() -> bool:
    """Whether this is a kernel that shows HTML."""
    shell: Any = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


@attrs.define
class _Bar:
    """Of a segment.

    Attributes:
        segment: which.
        done: optimizer steps.
        note: the last score, or what is being measured.
    """

    segment: Segment
    done: int = 0
    note: str = ""


class NotebookDisplay(AbstractProgress):
    """Bars while the run works; then how many segments were trained, with a line for each to unfold. Needs no widgets."""

    def __init__(self) -> None:
        self._pace = Pace()
        self._standing = Standing(self._pace)
        self._begun = self._drawn = time.monotonic()
        self._running: dict[str, _Bar] = {}
        self._said: list[str] = []
        self._unusual: list[str] = []
        self._trained = self._missed = self._there = 0
        self._handle: Any = None

    def __enter__(self) -> NotebookDisplay:
        """Open the display.

        Raises:
            MissingDependencyError: IPython is not installed.
        """
        try:
            display: Any = importlib.import_module("IPython.display").display
        except ImportError as error:
            msg = "progress='notebook' needs IPython, which every notebook has; take 'bars' or 'lines' here"
            raise MissingDependencyError(msg) from error
        self._handle = display(_bundle("preparing", self._bars()), raw=True, display_id=True)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Leave what stays."""
        self._update(self._outcome(), join([element("div", self._outcome()), *self._lines()]))

    def planned(self, segments: Sequence[Segment]) -> None:
        """Set the totals."""
        self._pace.planned(segments)
        self._draw()

    def found(self, results: Results, *, searching: bool = False) -> None:
        """Fill the table of results."""
        self._standing.found(results, searching=searching)
        self._draw()

    def scored(self, segment: Segment, row: Mapping[str, float | None]) -> None:
        """Write it into the table."""
        self._standing.scored(segment, row)

    def placed(self, segment: Segment, where: str) -> None:
        """Write it beside its bar; of many that wait for their turn, the first have one."""
        self._pace.placed(segment, where)
        if sum(waiting in self._running for waiting in self._pace.waiting) < WAITING:
            self._bar(segment)
        self._draw()

    def lost(self, segment: Segment) -> None:
        """Take its bar away; the run says why."""
        self._pace.lost(segment)
        self._running.pop(segment.id, None)
        self._draw()

    def started(self, segment: Segment) -> None:
        """Add a bar."""
        self._pace.elsewhere(segment)
        self._running[segment.id] = _Bar(segment)
        self._draw()

    def trained(self, segment: Segment, iteration: int, row: Mapping[str, float | None] | None) -> None:
        """Move its bar."""
        self._pace.trained(segment, iteration)
        if row:
            self._standing.scored(segment, row)
        bar = self._bar(segment)
        bar.done, bar.note = iteration, latest(row) or bar.note
        self._draw()

    def measuring(self, segment: Segment, what: str) -> None:
        """Write it beside its bar."""
        self._pace.elsewhere(segment)
        self._bar(segment).note = what
        self._draw()

    def ended(self, segment: Segment, outcome: str, *, before: bool = False) -> None:
        """Take its bar away and note how it ended."""
        name = self._pace.named(segment)
        self._pace.end(segment, before=before)
        self._running.pop(segment.id, None)
        missed = not before and outcome.startswith(MISSED)
        self._there += before
        self._missed += missed
        self._trained += not (before or missed)
        if not before:
            self._standing.ended(segment, outcome)
            self._note(f"{name}: {outcome}", unusual=outcome.startswith(UNUSUAL))
        self._draw()

    def say(self, text: str) -> None:
        """Note it."""
        self._note(text, unusual=text.startswith(UNUSUAL))
        self._draw()

    def _bar(self, segment: Segment) -> _Bar:
        return self._running.setdefault(segment.id, _Bar(segment))

    def _note(self, text: str, *, unusual: bool) -> None:
        (self._unusual if unusual else self._said).append(plain(text))

    def _draw(self) -> None:
        now = time.monotonic()
        if now - self._drawn >= DRAWN_EVERY:
            self._drawn = now
            self._update(self._state(), self._bars())

    def _state(self) -> str:
        return f"{self._pace.ended} of {len(self._pace.segments)} segments{self._pace.queue()}{self._pace.remaining()}"

    def _bars(self) -> Html:
        """The table as it fills, all segments, those under way, and what was said last."""
        rows = [_row(self._state(), self._pace.steps, self._pace.iterations)]
        for identity, bar in islice(self._running.items(), MOST_BARS):
            rows.append(_row(bar.segment.title, bar.done, bar.segment.settings.iterations, self._pace.place(identity), bar.note))
        last = [element("div", text) for text in (*self._unusual, *self._said[-1:])]
        return join([*self._table(), element("table", element("tbody", *rows)), *last])

    def _table(self) -> list[Html]:
        outlook = self._standing.outlook()
        if outlook is None:
            return []
        content, rest = outlook.window(MOST_ROWS)
        captions = (content.caption, rest[:1].upper() + rest[1:])
        table = Table(headings=content.headings, rows=content.lines, caption=" ".join(filter(None, captions)), texts=2, strong=content.best)
        return [table.html()]

    def _outcome(self) -> str:
        spent = human_duration(time.monotonic() - self._begun)
        there = f", {self._there} {'was' if self._there == 1 else 'were'} there before" if self._there else ""
        missed = f", {self._missed} failed or skipped" if self._missed else ""
        return f"{self._pace.ended} of {len(self._pace.segments)} segments: {self._trained} trained in {spent}{there}{missed}"

    def _lines(self) -> list[Html]:
        unusual = [element("div", text) for text in self._unusual]
        folded = element("details", element("summary", "each"), *(element("div", text) for text in self._said))
        return [*unusual, folded] if self._said else unusual

    def _update(self, text: str, html: Html) -> None:
        if self._handle is not None:
            self._handle.update(_bundle("\n".join([text, *self._unusual]), html), raw=True)


def _row(title: str, done: int, total: int, *notes: str) -> Html:
    bar = element("progress", value=str(done), max=str(max(total, 1)), style="width: 12em")
    cells = (element("td", cell, style="text-align: left") for cell in (bar, title, *notes))
    return element("tr", *cells)


def _bundle(text: str, html: Html) -> dict[str, str]:
    return {"text/plain": text, "text/html": str(html)}
