"""The interface of observers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from anarch_core.observer.events import Event


class AbstractObserver(ABC):
    """Is told what happens in a run, and passes it on: to a file, a dashboard, a tracking server.

    An observer lives in the process that was started, never in a worker, and on a thread of its own, where its methods are called one after
    the other. Whatever it does, the run goes on: one that raises is left out from there on, one that is slow is told less (see
    :mod:`anarch_core.observer.events`), one that does not come to an end is left behind. In turn it leaves alone what the whole process
    shares: the random generators of Python, numpy and torch, the working directory, signals.

    An instance is built before the run starts, with an instance of its option class (or None). What is missing, a package or a permission,
    is said then, by an :class:`~anarch_core.errors.AnarchError`, and the run does not start; nothing is written before the first event.
    """

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def observe(self, event: Event) -> None:
        """Something happened. Events that mean nothing to an observer, also of kinds that a later version adds, are passed over."""

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        """The last event was told, or an earlier one failed: let go of files and connections."""
