"""A run that is asked to stop: by signals, and where they take effect.

The first signal waits until the step under way is done and its state is saved; where there is nothing to save (loading, relaxing,
measuring) it does not wait, because a batch system that says SIGTERM says SIGKILL half a minute later. Another one, later on, ends what is
under way wherever it is: files are whole in any case.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from types import FrameType

from anarch_core.errors import RunError, Stopped
from anarch_core.experiment.store import RunStore
from anarch_core.plugin.factories import as_argument, of_this_process

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, the end of a batch job, a closing terminal."""

APART = 1.0
"""Seconds from which on a signal is another one: ``timeout``, shells and systemd send theirs twice, to the process and to its group."""


class InterruptedRunError(RunError):
    """The run was asked to stop and has saved its state."""

    exit_code = 130

    @classmethod
    def of(cls, store: RunStore, state: str, factories: Mapping[str, str]) -> InterruptedRunError:
        """Says how to go on, and in which state the run is.

        Args:
            store: its directory.
            state: in words.
            factories: its model and its data by setting, where they have to be named again because no file's word is taken for them.
        """
        if store.config_file.exists():
            if any(map(of_this_process, factories.values())):
                given = ", ".join([repr(str(store.path)), *(f"{setting}={as_argument(spec)}" for setting, spec in factories.items())])
                return cls(f"{state}; go on in this script or notebook: anarch_core.resume({given})")
            named = "".join(f" --{setting} {spec}" for setting, spec in factories.items())
            return cls(f"{state}; go on with: anarch resume {store.path}{named}")
        return cls("stopped before anything was trained; nothing was written")


class Stop:
    """Whether the run was asked to stop.

    Args:
        insist: whether another signal ends what is under way, wherever it is.
        notice: called once, by whoever first asks whether to stop when it is so.

    Attributes:
        asked: by which signal, None while nothing asked.
        broke_off: whether something under way was ended where it was. Libraries turn what is raised in them into errors of their own, or
            go on with less: what comes out of it is to be taken for nothing.
    """

    def __init__(self, *, insist: bool = True, notice: Callable[[], None] = lambda: None) -> None:
        self.asked: signal.Signals | None = None
        self._insist, self._notice = insist, notice
        self._noticed = self._waits_for_nothing = self.broke_off = False
        self._heeded = 0.0

    def __call__(self) -> bool:
        """Whether to save and stop."""
        if self.asked is not None and not self._noticed:
            self._noticed = True
            self._notice()
        return self.asked is not None

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """Ask to stop; a handler of signals.

        Raises:
            Stopped: there is nothing to wait for, or this is another signal.
        """
        first, now = self.asked is None, time.monotonic()
        if first:
            self.asked = signal.Signals(number)
        elif not self._insist or now < self._heeded + APART:
            return
        self._heeded = now
        if self._waits_for_nothing or not first:
            self.broke_off = True
            raise Stopped

    def ask_in(self, thread: int) -> None:
        """Ask to stop in a thread that is not the main one, which no signal reaches; called in another.

        Args:
            thread: its :func:`threading.get_ident`.
        """
        self.asked = signal.SIGTERM
        if self._waits_for_nothing:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Stopped))

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, where nothing has to be saved, a stop does not wait.

        Raises:
            Stopped: the run is, or was, asked to stop; in place of whatever error came of that.
        """
        with self._waiting_for_nothing(True):
            self.check()
            try:
                yield
            finally:
                self.check()

    @contextlib.contextmanager
    def insisted(self) -> Iterator[None]:
        """Inside, where a stop waits and another one does not, that one is what is raised, not an error that came of it.

        Raises:
            Stopped: something was broken off.
        """
        try:
            yield
        except Exception as error:
            if self.broke_off:
                raise Stopped from error
            raise

    def later(self) -> contextlib.AbstractContextManager[None]:
        """Inside, as where a message is half written, a stop waits again."""
        return self._waiting_for_nothing(False)

    @contextlib.contextmanager
    def _waiting_for_nothing(self, value: bool) -> Iterator[None]:
        found, self._waits_for_nothing = self._waits_for_nothing, value
        try:
            yield
        finally:
            self._waits_for_nothing = found

    def check(self) -> None:
        """End what is under way if the run was asked to stop and nothing has to be saved.

        Raises:
            Stopped: so it is.
        """
        if self._waits_for_nothing and self.asked is not None:
            raise Stopped

    def on_signals(self, numbers: Collection[signal.Signals] = SIGNALS) -> contextlib.AbstractContextManager[None]:
        """Inside, signals ask to stop; not those that are ignored, as under ``nohup``, and none outside the main thread."""
        return handling(numbers, self.ask)


@contextlib.contextmanager
def handling(numbers: Collection[signal.Signals], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle signals, but those that are ignored; the handlers found are put back. Outside the main thread nothing is handled."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: handler for number in numbers if (handler := signal.getsignal(number)) not in (signal.SIG_IGN, None)}
    try:
        for number in found:
            signal.signal(number, handle)
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)


def interrupts() -> contextlib.AbstractContextManager[None]:
    """Inside, SIGTERM and SIGHUP raise KeyboardInterrupt, as SIGINT does: a command says that it was interrupted, and clears up."""
    return handling((signal.SIGTERM, signal.SIGHUP), signal.default_int_handler)
