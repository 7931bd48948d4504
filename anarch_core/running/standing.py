"""What a run has come to by now, as the table that sums it up: lines that are complete, under way and to come."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import attrs

from anarch_core.experiment.summary import Summary, summary
from anarch_core.experiment.summary_rows import Pending, Place, place
from anarch_core.machine import human_duration
from anarch_core.running.coming import SEARCHING
from anarch_core.running.pace import Expected, Pace

if TYPE_CHECKING:
    from anarch_core.experiment.results import Results
    from anarch_core.experiment.segments import Segment

Scored = Mapping[str, float | None]

State = Literal["done", "under way", "coming"]

MISSED = ("failed", "skipped")
"""How the outcome of a segment begins that has no result."""

LOOKED_AT_EVERY, PART_OF_THE_TIME = 1.0, 0.05
"""Seconds between two looks at what a run has come to while no segment ends, and how much of the time they may take."""


@attrs.frozen(kw_only=True)
class Outlook:
    """The table of a run that goes on.

    Attributes:
        content: all lines.
        states: of the lines.
        order: numbers of the lines, those first that are worth most where there is room for few.
        notes: what no line says.
    """

    content: Summary
    states: Sequence[State]
    order: Sequence[int]
    notes: Sequence[str]

    def window(self, most: int) -> tuple[Summary, str]:
        """As many lines as there is room for, and what is to be said of the rest; nothing where all is said."""
        shown = sorted(self.order[:most])
        hidden = [self.states[index] for index in self.order[most:]]
        counts = [f"{count} {state}" for state in ("under way", "done", "coming") if (count := hidden.count(state))]
        rest = [f"and {len(hidden)} more: {', '.join(counts)}"] if hidden else []
        return self.content.only(shown), "; ".join([*rest, *self.notes])


class Standing:
    """Notes what is known of the segments of a run, and lays it out as lines of the summary.

    Args:
        pace: of the run; told of everything before this is.
    """

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._results: Results | None = None
        self._searching = False
        self._starts: dict[str, Scored] = {}
        self._latest: dict[str, Scored] = {}
        self._missed: dict[str, str] = {}
        self._ended: dict[str, int] = {}
        self._seen: Outlook | None = None
        self._next = self._earliest = 0.0

    def found(self, results: Results, *, searching: bool) -> None:
        """These are the results by now; ``searching`` while a schedule may find more segments."""
        self._results, self._searching, self._next = results, searching, self._earliest

    def scored(self, segment: Segment, row: Scored) -> None:
        """A row of the history of a segment that is under way."""
        if not row.get("epoch"):
            self._starts[segment.id] = row
        else:  # not every row has a test score
            self._latest[segment.id] = {**self._latest.get(segment.id, {}), **row}

    def ended(self, segment: Segment, outcome: str) -> None:
        """A segment has ended in this process."""
        self._ended[segment.id] = len(self._ended)
        for word in MISSED:
            if outcome.startswith(word):
                self._missed[segment.id] = word

    def outlook(self) -> Outlook | None:
        """The table by now, or as it was a moment ago; None before anything is known of what the run finds."""
        begun = time.monotonic()
        if self._results is not None and begun >= self._next:
            self._seen, now = self._look(self._results), time.monotonic()
            self._earliest = now + (now - begun) / PART_OF_THE_TIME
            self._next = max(self._earliest, now + LOOKED_AT_EVERY)
        return self._seen

    def _look(self, results: Results) -> Outlook:
        groups: dict[Place, list[Segment]] = {}
        for segment in self._pace.segments:
            if not segment.noise:
                at = place(segment.kind, segment.relaxation, None if segment.switch is None else segment.switch.epoch)
                groups.setdefault(at, []).append(segment)
        there, expected = {segment.id for segment in results.segments}, self._pace.expected()
        parts = {at: _Group(group, self._pace, there, self._missed) for at, group in groups.items()}
        metric, control = results.objective.metric, place("continued", None, None)[0]
        pending = {
            # The word beside a branch is about its control, which there is little room for.
            at: self._pending(part, {} if at[0] == control else expected, metric.name)
            for at, part in parts.items()
            if part.left or part.missed
        }
        content = summary(results.segments, results.headlines, metric, pending)
        involved = [[parts[near] for near in (at, _control(at)) if near in parts] for at in content.places]
        states = [_joint([part.state for part in group]) for group in involved]
        recent = [max((self._ended.get(segment.id, -1) for part in group for segment in part.segments), default=-1) for group in involved]
        return Outlook(content=content, states=states, order=list(dict.fromkeys(_order(content, states, recent))), notes=self._notes())

    def _pending(self, part: _Group, expected: Mapping[str, Expected], metric: str) -> Pending:
        """What is known of the segments of a line that have no result."""
        started = [segment.id for segment in part.left if self._pace.share(segment) is not None]

        def known(rows: Mapping[str, Scored], key: str) -> list[float]:
            return [value for identity in started if (value := rows.get(identity, {}).get(key)) is not None]

        return Pending(
            note=", ".join(part.words(expected)),
            start=known(self._starts, f"test_{metric}"),
            train=known(self._latest, f"train_{metric}"),
            test=known(self._latest, f"test_{metric}"),
        )

    def _notes(self) -> list[str]:
        others = sum(bool(segment.noise) and not self._pace.over(segment) for segment in self._pace.segments)
        notes = [f"not among these: {others} of another order of batches that have not ended"] if others else []
        return [*notes, f"later: {SEARCHING}"] if self._searching else notes


@attrs.frozen
class _Group:
    """The segments of a line.

    Attributes:
        segments: of all seeds.
        pace: of the run.
        there: identities of those with results.
        reasons: by identity, how those ended that have none.
    """

    segments: Sequence[Segment]
    pace: Pace
    there: set[str]
    reasons: Mapping[str, str]

    @property
    def left(self) -> list[Segment]:
        """Those that have not ended."""
        return [segment for segment in self.segments if not self.pace.over(segment)]

    @property
    def missed(self) -> list[str]:
        """How those ended that have no result."""
        return [self.reasons[segment.id] for segment in self.segments if segment.id in self.reasons]

    @property
    def shares(self) -> list[float]:
        """How far those are that are under way."""
        return [share for segment in self.left if (share := self.pace.share(segment)) is not None]

    @property
    def state(self) -> State:
        """Of the line."""
        return "under way" if self.shares else "coming" if self.left else "done"

    def words(self, expected: Mapping[str, Expected]) -> Iterator[str]:
        """What is missing, in words."""
        left, shares, several = self.left, self.shares, len(self.segments) > 1
        done = len(self.segments) - len(left) - len(self.missed)
        if several and (done or shares):
            yield f"{done}/{len(self.segments)} seeds"
        if left and all(segment.id in self.there for segment in left):
            yield "being completed" if shares else "to be completed"
        elif shares:
            yield "measuring" if min(shares) >= 1 else f"{100 * statistics.fmean(shares):.0f} %"
        elif left and not done:
            yield "coming"
        for word in dict.fromkeys(self.missed):
            yield f"{self.missed.count(word)} {word}" if several else word
        times = [expected[segment.id] for segment in left if segment.id in expected]
        if (seconds := sum(time.seconds for time in times)) >= 1 and (len(left) == 1 or not shares):
            yield f"{'about' if all(time.certain for time in times) else 'over'} {human_duration(seconds)}"


def _control(at: Place) -> Place | None:
    """The line of the control that stands beside that of a branch."""
    return place("continued", None, at[2]) if at[0] == place("branch", None, None)[0] else None


def _joint(states: Sequence[State]) -> State:
    """Of a branch and its control."""
    return next((state for state in ("under way", "coming") if state in states), "done")


def _order(content: Summary, states: Sequence[State], recent: Sequence[int]) -> Iterator[int]:
    """Numbers of the lines: what goes on, the best branch, the trunk, then by turns what ended last and what comes next; some twice."""
    lines = range(len(states))
    yield from (line for line in lines if states[line] == "under way")
    yield from content.best
    yield from lines[:1]
    ended = sorted((line for line in lines if recent[line] >= 0), key=lambda line: -recent[line])
    coming = [line for line in lines if states[line] == "coming"]
    yield from (line for pair in itertools.zip_longest(ended, coming) for line in pair if line is not None)
    yield from lines
