"""How far a run is, and how long the rest takes at the pace seen so far."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import attrs

from anarch_core.errors import plain
from anarch_core.machine import human_duration

if TYPE_CHECKING:
    from anarch_core.experiment.segments import Segment

MANY = 10
"""Segments at once whose number is told."""

LONGEST = 60
"""Characters of who trains a segment."""

ENOUGH = 3.0
"""Seconds of training that have to be seen before a pace is believed."""


@attrs.define
class _Underway:
    """A segment that this process has trained.

    Attributes:
        at: when it was heard of last.
        iteration: how far it was then; None while it starts or is measured, when time passes without steps.
        other: seconds that passed so.
    """

    at: float
    iteration: int | None = None
    other: float = 0.0


@attrs.define
class _Spent:
    """What networks of one kind took.

    Attributes:
        seconds: of training.
        steps: taken in them.
        other: seconds of starting and measuring, by segment that ended.
    """

    seconds: float = 0.0
    steps: int = 0
    other: list[float] = attrs.Factory(list)


@attrs.frozen
class Expected:
    """How long a segment takes from here on.

    Attributes:
        seconds: of training and measuring, at least.
        certain: whether networks of its kind were trained and some segment was measured, so that it takes about as long.
    """

    seconds: float
    certain: bool


class Pace:
    """Counts optimizer steps and the time they take, the first ones of each segment left out, which are slow.

    Relaxed networks are slower, so that each relaxation has a pace of its own.

    Attributes:
        segments: of the run.
        iterations: optimizer steps of all of them.
        ended: how many have ended.
    """

    def __init__(self) -> None:
        self.segments: Sequence[Segment] = ()
        self.iterations = self.ended = 0
        self._done: dict[str, int] = {}
        self._underway: dict[str, _Underway] = {}
        self._spent: dict[str | None, _Spent] = {}
        self._over: set[str] = set()
        self._places: dict[str, str] = {}
        self._waiting: dict[str, None] = {}

    @property
    def steps(self) -> int:
        """Optimizer steps done."""
        return sum(self._done.values())

    def planned(self, segments: Sequence[Segment]) -> None:
        """These are to be trained."""
        self.segments = segments
        self.iterations = sum(segment.settings.iterations for segment in segments)

    @property
    def waiting(self) -> Sequence[str]:
        """Identities of the segments that have a place where nothing was heard of them yet, as in a queue; the first of them first."""
        return tuple(self._waiting)

    def queue(self) -> str:
        """How many segments are under way where they are many, and how many wait for their turn, as it goes on in a line."""
        many = f", {len(self._underway)} at once" if len(self._underway) >= MANY else ""
        return f"{many}, {len(self._waiting)} waiting" if self._waiting else many

    def place(self, identity: str) -> str:
        """Who trains a segment, in words; empty where nobody says."""
        return self._places.get(identity, "")

    def named(self, segment: Segment) -> str:
        """A segment's title, with who trains it where that is known: ``"trunk, seed 0 (cuda:1)"``."""
        where = "" if segment.id in self._waiting else self.place(segment.id)
        return f"{segment.title} ({where})" if where else segment.title

    def placed(self, segment: Segment, where: str) -> None:
        """A segment has a place; it is not under way before more is heard of it."""
        self._places[segment.id] = plain(where, LONGEST)
        self._underway.pop(segment.id, None)
        self._waiting[segment.id] = None

    def lost(self, segment: Segment) -> None:
        """Whoever had a segment is gone."""
        for known in (self._places, self._underway, self._waiting):
            known.pop(segment.id, None)

    def trained(self, segment: Segment, iteration: int) -> None:
        """A segment has taken so many steps."""
        self._done[segment.id] = iteration
        seen = self._seen(segment)
        if seen.iteration is None:
            self._pass(seen)
        else:
            now, spent = time.monotonic(), self._spent_on(segment)
            spent.seconds += now - seen.at
            spent.steps += iteration - seen.iteration
            seen.at = now
        seen.iteration = iteration

    def elsewhere(self, segment: Segment) -> None:
        """A segment starts, or is measured."""
        self._pass(self._seen(segment))

    def end(self, segment: Segment, *, before: bool) -> None:
        """A segment ended, or had when the run began."""
        self._done[segment.id] = segment.settings.iterations
        self.ended += 1
        self._over.add(segment.id)
        seen = self._underway.get(segment.id)
        if seen is not None and not before:
            self._pass(seen)
            self._spent_on(segment).other.append(seen.other)
        self.lost(segment)

    def share(self, segment: Segment) -> float | None:
        """Which part of its steps a segment under way has taken; None for one that is not under way."""
        return self._done.get(segment.id, 0) / segment.settings.iterations if segment.id in self._underway else None

    def over(self, segment: Segment) -> bool:
        """Whether a segment has ended."""
        return segment.id in self._over

    def expected(self) -> dict[str, Expected]:
        """How long each segment that has not ended takes from here on, by identity; empty while too little is known."""
        if sum(spent.seconds for spent in self._spent.values()) < ENOUGH:
            return {}
        paces = {kind: spent.seconds / spent.steps for kind, spent in self._spent.items() if spent.steps}
        fastest = min(paces.values())
        others = [other for spent in self._spent.values() for other in spent.other]
        average = sum(others) / len(others) if others else 0.0
        typical = {kind: sum(spent.other) / len(spent.other) for kind, spent in self._spent.items() if spent.other}
        left = {}
        for segment in self.segments:
            if segment.id in self._over:
                continue
            kind, seen = segment.relaxation, self._underway.get(segment.id)
            seconds = paces.get(kind, fastest) * (segment.settings.iterations - self._done.get(segment.id, 0))
            seconds += max(0.0, typical.get(kind, average) - (seen.other if seen else 0.0))
            left[segment.id] = Expected(seconds, certain=bool(others) and kind in paces)
        return left

    def remaining(self) -> str:
        """The time left, as it goes on in a line; empty while too little is known, or all that could be trained waits in a queue."""
        left = self.expected()
        if not left or (self._waiting and not self._underway):
            return ""
        word = "about" if all(segment.certain for segment in left.values()) else "over"
        return f", {word} {human_duration(sum(segment.seconds for segment in left.values()) / max(len(self._underway), 1))} left"

    def _seen(self, segment: Segment) -> _Underway:
        self._waiting.pop(segment.id, None)
        return self._underway.setdefault(segment.id, _Underway(time.monotonic()))

    def _spent_on(self, segment: Segment) -> _Spent:
        return self._spent.setdefault(segment.relaxation, _Spent())

    def _pass(self, seen: _Underway) -> None:
        now = time.monotonic()
        seen.other += now - seen.at
        seen.at, seen.iteration = now, None
