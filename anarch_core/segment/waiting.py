"""A segment that a process of an earlier run still holds is waited for, and the user is told."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from anarch_core.segment.stopping import Stop

TOLD_AFTER = 2.0
"""Seconds of waiting for a process that holds a segment before that is said."""


class Waiting:
    """Says once that a segment is held by a process that an earlier run left behind.

    Args:
        title: of the segment.
        say: told.
        stop: whether the run was asked to stop, which ends the waiting.
    """

    def __init__(self, title: str, say: Callable[[str], None], stop: Stop) -> None:
        self._title, self._say, self._stop = title, say, stop
        self._from = time.monotonic() + TOLD_AFTER

    def __call__(self, holder: str) -> None:
        """Called while the lock is held by the process of that number, which is empty if it is not known.

        Raises:
            Stopped: the run was asked to stop.
        """
        with self._stop.at_once():
            if time.monotonic() >= self._from:
                self._from = math.inf
                process = f"process {holder}" if holder else "a process"
                self._say(f"{self._title} waits for {process}, left by an earlier run, which still holds it; end it if it hangs")
