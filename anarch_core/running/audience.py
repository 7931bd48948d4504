"""The observers of a run, each on a thread of its own, so that whatever one does, the run neither waits for it nor fails."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias

from anarch_core.errors import AnarchError, one_line
from anarch_core.observer.base import AbstractObserver
from anarch_core.observer.events import EpochDone, Event, Measured, Warned
from anarch_core.surroundings import beside

Story: TypeAlias = Iterable[Event]
"""Events that are made when they are told, one by one."""

MOST_WAITING = 10_000
"""Events that wait for an observer before rows, measurements and warnings are left out."""

PATIENCE = 20.0
"""Seconds that an observer may take for one event, and to close, once the run has ended."""

LONGEST = 600.0
"""Seconds after the end of the run that an observer may take for all of them."""

SILENT = 1.0
"""Seconds of waiting before that is said."""


class _Listener:
    """An observer and its thread.

    Args:
        who: it is, and whose, as a message begins.
        observer: told.

    Attributes:
        told: events so far.
        left_out: events that were not told because too many waited.
        problem: what it raised; None while all is well.
    """

    def __init__(self, who: str, observer: AbstractObserver) -> None:
        self.who, self._observer = who, observer
        self.told = self.left_out = 0
        self.problem: BaseException | None = None
        self._waiting: deque[Story | None] = deque()
        self._more = threading.Semaphore(0)
        self._given_up = False
        self._thread = threading.Thread(target=self._listen, name=f"anarch observer {who}", daemon=True)
        beside(self._thread)

    def tell(self, story: Story) -> None:
        """Have it told when it is ready; never waits."""
        if self.problem is not None or self._given_up:
            return
        if not self._thread.is_alive():
            self._thread.start()
        if len(self._waiting) >= MOST_WAITING and isinstance(story, tuple) and isinstance(story[0], EpochDone | Measured | Warned):
            self.left_out += 1
            return
        self._put(story)

    def end(self) -> None:
        """Nothing more will be told."""
        self._put(None)

    def give_up(self) -> None:
        """Leave it behind; should it come back, it is told nothing more."""
        self._given_up = True

    def wait(self, seconds: float) -> bool:
        """Whether it is done, now or that many seconds from now."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _put(self, story: Story | None) -> None:
        self._waiting.append(story)
        self._more.release()

    def _next(self) -> Story | None:
        self._more.acquire()
        return None if self._given_up else self._waiting.popleft()

    def _listen(self) -> None:
        try:
            while (story := self._next()) is not None:
                for event in story:
                    if self._given_up:
                        return
                    self._observer.observe(event)
                    self.told += 1
            self._observer.close()
        except BaseException as error:  # whatever it is, also an exit, is this thread's alone
            self.problem = error
            self._waiting.clear()
            with contextlib.suppress(BaseException):
                self._observer.close()


class Audience:
    """All observers of a run.

    Args:
        observers: with who they are, and whose.
        say: told in a line what became of one.
    """

    def __init__(self, observers: Iterable[tuple[str, AbstractObserver]], say: Callable[[str], None]) -> None:
        self._listeners = [_Listener(who, observer) for who, observer in observers]
        self._failed: set[_Listener] = set()
        self._say = say

    def __bool__(self) -> bool:
        """Whether there is anyone."""
        return bool(self._listeners)

    def tell(self, story: Story) -> None:
        """Have all of them told; what one of them raised meanwhile is said."""
        for listener in self._listeners:
            listener.tell(story)
        self._complain()

    def close(self, hurry: Callable[[], bool] = lambda: False) -> None:
        """Wait until all of them have heard everything, but not for one that does not get on.

        Args:
            hurry: whether to wait no longer.
        """
        begun = time.monotonic()
        heard = {listener: (listener.told, begun) for listener in self._listeners}
        for listener in self._listeners:
            listener.end()
        said = False
        while waiting := [listener for listener in heard if not listener.wait(0)]:
            now = time.monotonic()
            for listener in waiting:
                told, _ = heard[listener]
                if listener.told != told:
                    heard[listener] = listener.told, now
            patient = [listener for listener in waiting if now - heard[listener][1] < PATIENCE and now - begun < LONGEST]
            if not patient or hurry():
                break
            if not said and now - begun > SILENT:
                said = True
                self._say(f"waiting for {' and '.join(listener.who for listener in patient)} to finish")
            patient[0].wait(0.02)
        self._complain()
        for listener in waiting:
            listener.give_up()
            self._say(f"warning: {listener.who} did not finish with the run and is left behind; what it told is not complete")
        for listener in self._listeners:
            if listener.left_out:
                self._say(f"warning: {listener.who} was too slow, and was not told {listener.left_out:,} rows, measurements and warnings")

    def _complain(self) -> None:
        for listener in self._listeners:
            if listener.problem is not None and listener not in self._failed:
                self._failed.add(listener)
                error = listener.problem
                why = str(error) if isinstance(error, AnarchError) else one_line(error)
                self._say(f"warning: {listener.who} is left out from here on, and the run goes on: {why}")
