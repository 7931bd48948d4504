"""One job of Slurm that trains one segment, as the run sees it: what it told, and what Slurm says of it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs

from anarch_core.errors import RunError
from anarch_core.workers import Event, Outcome, RunStore
from anarch_plugins.workers.slurm.queue import Found
from anarch_plugins.workers.slurm.submission import Submission
from anarch_plugins.workers.slurm.task import VISIBLE_AFTER, seen
from anarch_plugins.workers.slurm.telling import ENDED, PLACED, Listener

LATE = 5.0
"""Seconds after the end of a job in which what it wrote may still be on its way."""

FORGOTTEN = 30.0
"""Seconds after which a job is given up that Slurm does not name any more."""

GONE = "UNKNOWN"
"""State of a job that Slurm does not know, or does not know any more."""

STUCK = ("held", "Held", "BadConstraints", "TimeLimit", "MaxWall")
"""Parts of Slurm's words for why a job waits that mean it will not begin unless somebody does something."""

HINTS = {
    "OUT_OF_MEMORY": "ask for more with --slurm-memory",
    "TIMEOUT": "its state was not saved in time; ask for more with --slurm-time",
}


@attrs.define
class Attempt:
    """A job that was submitted.

    Attributes:
        submission: with which.
        index: which one of it.
        segment: that it trains, by identity.
        store: the run directory.
        found: as Slurm last saw it; None until it did.
        listener: reads what it tells.
    """

    submission: Submission
    index: int
    segment: str
    store: RunStore
    listener: Listener
    found: Found | None = None
    _stuck: bool = False
    _told: Event | None = None
    _told_at: float = 0.0
    _ended_at: float | None = None

    @classmethod
    def of(cls, submission: Submission, index: int, store: RunStore) -> Attempt:
        """The job of that number."""
        segment = submission.segments[index]
        return cls(submission, index, segment, store, Listener(submission.events(index), segment))

    @property
    def called(self) -> str:
        """``"Slurm job 17 on n1"``."""
        return self.found.called if self.found is not None else f"the Slurm job {self.submission.name!r}"

    @property
    def over(self) -> bool:
        """Whether nothing of it runs any more, or will."""
        return self._ended_at is not None

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled it."""
        return self.found is not None and self.found.state == "CANCELLED"

    def stuck(self) -> str | None:
        """What the user has to do lest it wait for ever, said once; None if nothing."""
        if self.found is None or self._stuck or self.found.state != "PENDING" or not any(word in self.found.reason for word in STUCK):
            return None
        self._stuck = True
        return f"Slurm job {self.found.id} does not begin by itself: {self.found.reason}; see 'scontrol show job {self.found.id}'"

    def events(self) -> Iterator[Event]:
        """What it told since it was last asked."""
        for event in self.listener():
            if event.kind == ENDED:
                self._told, self._told_at = event, time.monotonic()
                continue
            if event.kind in ("snapshot", "saved"):
                self._look_again()
            yield event

    def see(self, found: Found | None) -> Event | None:
        """Take note of what Slurm says; an event if it waits for another reason than before."""
        before, self.found = self.found, found or self.found
        if found is None or found.ended:
            self._ended_at = self._ended_at or time.monotonic()
            return None
        self._ended_at = None  # a job that ended may be requeued
        words = f"waits as Slurm job {found.id}{f' ({found.reason})' if found.reason else ''}"
        changed = before is None or (before.state, before.reason) != (found.state, found.reason)
        return Event(PLACED, self.segment, words) if found.state == "PENDING" and changed else None

    def outcome(self, *, patient: bool = True) -> Outcome | None:
        """How it ended; None if it did not yet.

        Args:
            patient: whether to give what it wrote last some time to be seen here.
        """
        now, files = time.monotonic(), self.store.segment(self.segment)
        if self._told is not None:
            error, trace = self._told.value.get("error"), self._told.value.get("trace")
            if error is not None:
                return Outcome(segment=self.segment, error=str(error), trace=None if trace is None else str(trace))
            late = now > self._told_at + VISIBLE_AFTER
        elif self._ended_at is not None:
            known = self.found is not None and self.found.ended
            late = not patient or now > self._ended_at + (LATE if known else FORGOTTEN)
        else:
            return None
        self._look_again()
        if seen(files.result_file):
            try:
                return Outcome(segment=self.segment, result=files.finished()[0])
            except RunError as damage:
                return Outcome(segment=self.segment, error=str(damage), lost=True)
        return Outcome(segment=self.segment, error=self._epitaph(), lost=True) if late else None

    def _epitaph(self) -> str:
        """How it ended without a result."""
        state = GONE if self.found is None or not self.found.ended else self.found.state
        if self._told is not None:
            return f"{self.called} is done, but its result is not seen in {self.store.path}"
        if self.found is None or state == GONE:
            return f"{self.called} is no longer known to Slurm, and left no result"
        words = self.submission.last_words(self.found.id)
        if words is None and state in ("FAILED", "COMPLETED"):
            return f"{self.called} ended as {state} and wrote nothing, as where its node does not see {self.store.path}"
        hint = HINTS.get(state) or words
        return f"{self.called} ended as {state}{f': {hint}' if hint else ''}"

    def _look_again(self) -> None:
        files = self.store.segment(self.segment)
        for path in (files.result_file, files.snapshot(0)):
            seen(path)
