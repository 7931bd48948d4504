"""When to switch: the interface of schedules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from anarch_core.moments import Clock, Moment


class AbstractSchedule(ABC):
    """Decides at which moments of the trunk its snapshots become the parents of branches.

    A schedule is built with an instance of its option class (or None). It may know its moments before training (``log``, ``at``),
    or recognise them while the trunk trains (``plateau``); it must be a pure function of what it is given, so that a resumed run
    decides as the first one did.
    """

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        """Moments known before the trunk is trained, in any order, duplicates allowed.

        Args:
            clock: length of the trunk.

        Raises:
            ConfigError: a moment lies outside the trunk.
        """

    @abstractmethod
    def switches_now(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether to switch at the end of the epoch that was just trained.

        Args:
            history: one row per finished epoch of the trunk, oldest first, each with at least ``epoch``, ``train_loss``, ``train_accuracy``
                and, where a validation part was split off, ``validation_loss`` and ``validation_accuracy`` (accuracies in percent).
        """
