"""How long a call may take: one that does not come back is broken off, and fails its test."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

AT_ONCE = 20.0
"""Seconds that a single call may take, and that processes may take to end."""

_AWAITED: list[str] = []


@contextlib.contextmanager
def alarmed() -> Iterator[None]:
    """Inside, :func:`within` can break off a call; the handler is set once, not while something is trained that looks at it."""

    def late(number: int, frame: object) -> None:
        msg = f"{_AWAITED[-1]} did not return in time; `patience` of the test allows more"
        raise AssertionError(msg)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = signal.signal(signal.SIGALRM, late)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, found)


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Break off a call that does not come back.

    Raises:
        AssertionError: it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _AWAITED.append(f"within {seconds:.0f} seconds {what}")
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        _AWAITED.pop()
