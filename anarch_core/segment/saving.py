"""When to save the state of what is trained."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

AT_THE_END = 1.0
"""Seconds of training that are saved before what is measured at the end of a segment."""

SAVE_EVERY = 20.0
"""Seconds of training that a killed run loses at most; more where saving is slow, so that it takes no more than a thirtieth of the time."""


class SaveClock:
    """Tells when to save."""

    def __init__(self) -> None:
        self._begun = self._saved = time.monotonic()
        self._cost = 0.0

    def elapsed(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._begun

    def due(self, every: float | None = None) -> bool:
        """Whether it is time; ``every`` so many seconds instead of :data:`SAVE_EVERY`."""
        return time.monotonic() >= self._saved + max(SAVE_EVERY if every is None else every, 30 * self._cost)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around the saving, whose time is taken."""
        begun = time.monotonic()
        yield
        self._saved = time.monotonic()
        self._cost = self._saved - begun
