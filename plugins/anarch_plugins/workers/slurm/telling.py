"""What a job tells the run: events as lines of a file, which the run reads while it grows."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from anarch_core.workers import Event, event_from_line, event_to_line

SYNCED_EVERY = 1.0
"""Seconds after which what was told is forced on its way to other machines; what others wait for is at once."""

AT_ONCE = frozenset({"placed", "snapshot", "saved", "switch", "warning", "ended"})

PLACED, ENDED = "placed", "ended"
"""The first event of every attempt, and the last one of a job that came to an end: its value is a table of ``error`` and ``trace``."""


class Teller:
    """Appends what a job tells to a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._synced = 0.0
        self._file.write(b"\n")  # after what an attempt that was killed may have left without an end

    def __call__(self, event: Event) -> None:
        """Tell an event."""
        self._file.write(event_to_line(event))
        now = time.monotonic()
        if event.kind in AT_ONCE or now >= self._synced + SYNCED_EVERY:
            os.fsync(self._file.fileno())
            self._synced = now

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@attrs.define
class Listener:
    """Reads what a job has told since the last time.

    Attributes:
        path: the file; opened anew each time, which is when a network file system looks for what is new.
        segment: identity of what is told of.
        at: bytes that were read.
    """

    path: Path
    segment: str
    at: int = 0

    def __call__(self) -> Iterator[Event]:
        """The events; a line that is not whole yet is left for the next time."""
        for after, event in self._events():
            self.at = after
            if event is not None:
                yield event

    def skip(self) -> None:
        """Pass over what attempts before the last one told: that one told what had been done when it began."""
        before = begin = self.at
        for after, event in self._events():
            if event is not None and event.kind == PLACED:
                begin = before
            before = after
        self.at = begin

    def _events(self) -> Iterator[tuple[int, Event | None]]:
        """Each line that is whole, by its event, None where it is none, and where it ends."""
        try:
            with self.path.open("rb") as file:
                at = file.seek(self.at)
                lines = file.readlines()
        except OSError:
            return
        for line in lines:
            if line.endswith(b"\n"):
                at += len(line)
                yield at, event_from_line(line, self.segment)
