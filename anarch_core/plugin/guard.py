"""Importing what somebody else wrote: whatever it does but crash the interpreter, the program goes on, and output is its own."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from anarch_core.plugin.crash_note import CrashNote

SECONDS = 30.0
"""How long an import may take, unless ``ANARCH_PLUGIN_SECONDS`` says otherwise."""


class InterruptedImportError(KeyboardInterrupt):
    """The user pressed Ctrl-C while a plugin was imported; the message names it."""


class SlowImportError(BaseException):
    """A plugin took too long to import. No Exception, for the plugin may well catch those."""


class Guard:
    """Watches over the imports of others' plugins, one after the other.

    While one is imported, what is written to standard output goes to standard error, closing either closes nothing, Ctrl-C names the
    plugin, and a time limit ends it (these two in the main thread, where nobody else wants the signals). A note on disk says what is being
    imported, so that the next start can name a plugin that crashed the interpreter.
    """

    def __init__(self) -> None:
        self._note: CrashNote | None = None

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._note is not None:
            self._note.close()

    @contextlib.contextmanager
    def importing(self, name: str, owner: str) -> Iterator[None]:
        """Import a plugin inside.

        Args:
            name: of the plugin.
            owner: its distribution and version.

        Raises:
            InterruptedImportError: the user pressed Ctrl-C.
            SlowImportError: it took too long.
        """
        self._note = self._note or CrashNote()
        with self._note.of(name, owner), output_kept(), _interruptible(name, owner), _limited(seconds_allowed()):
            yield


def seconds_allowed() -> float:
    """How long an import may take; infinite for none, or for what is no number."""
    text = os.environ.get("ANARCH_PLUGIN_SECONDS", "").strip()
    try:
        seconds = float(text) if text else SECONDS
    except ValueError:
        seconds = SECONDS
    return seconds if 0 < seconds < threading.TIMEOUT_MAX else threading.TIMEOUT_MAX


class _Forwarding:
    """Standard error under another name; closing it closes nothing."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        pass


@contextlib.contextmanager
def output_kept() -> Iterator[None]:
    """Send what is written to standard output to standard error; afterwards both are what they were, whoever closed them."""
    found = sys.stdout, sys.stderr
    with contextlib.suppress(Exception):
        found[0].flush()
    kept = [_duplicate(number) for number in (1, 2)]
    if kept[0] is not None and kept[1] is not None:
        os.dup2(kept[1], 1)
    sys.stdout = sys.stderr = _Forwarding(found[1])
    try:
        yield
    finally:
        for number, descriptor in enumerate(kept, 1):
            if descriptor is not None:
                os.dup2(descriptor, number)
                os.close(descriptor)
        sys.stdout, sys.stderr = (
            stream if descriptor is None else _open(stream, number)
            for number, (stream, descriptor) in enumerate(zip(found, kept, strict=True), 1)
        )


def _duplicate(number: int) -> int | None:
    try:
        return os.dup(number)
    except OSError:
        return None


def _open(stream: Any, number: int) -> Any:
    if stream is None or not getattr(stream, "closed", False):
        return stream
    return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


@contextlib.contextmanager
def _interruptible(name: str, owner: str) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        msg = f"while plugin {name!r} ({owner}) was imported; ANARCH_DISABLE_PLUGINS={name} leaves it out"
        raise InterruptedImportError(msg)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    free = (
        threading.current_thread() is threading.main_thread()
        and hasattr(signal, "setitimer")
        and signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        and signal.getitimer(signal.ITIMER_REAL)[0] == 0
    )
    if not free or seconds >= threading.TIMEOUT_MAX:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        msg = f"not done after {seconds:g} s; ANARCH_PLUGIN_SECONDS allows more"
        raise SlowImportError(msg)

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again and again, for code that goes on whatever is raised in it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
