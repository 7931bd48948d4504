"""When to switch: moments of training, and the interface of schedules."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from anarch_core.bounds import shown
from anarch_core.errors import ConfigError

__all__ = ["AbstractSchedule", "Clock", "Moment"]


class AbstractSchedule(ABC):
    """Decides at which moments of the trunk its snapshots become the parents of branches.

    A schedule is built with an instance of its option class (or None). It may know its moments before training (``log``, ``at``),
    or recognise them while the trunk trains (``plateau``); it must be a pure function of what it is given, so that a resumed run
    decides as the first one did.
    """

    def __init__(self, options: Any) -> None:
        self.options = options

    @property
    def needs(self) -> Sequence[str]:
        """Columns of the history that it looks at; by default none, which also says that every run has what it needs.

        A run that cannot have a column is refused before it starts. Every row has ``"train_loss"`` and the other scores of the training
        set, ``"learning_rate"``, and the same scores of ``"validation_..."`` where a validation part was split off. These are there if a
        schedule needs them:

        * ``"gradient_norm"``: mean over the steps of the epoch of the 2-norm of the gradient that the step was taken with, over all
          parameters as they are, before it is clipped: (1/T) Σ ‖∇L_t(w_t)‖₂;
        * ``"PROBE.SCALAR"``, as ``"hessian.lambda_max"`` or ``"gradient.norm"`` (of the whole training set): what a probe measures of the
          trunk, in the rows of every ``watch_every``-th epoch. A number that could not be measured is nan.

        What is measured on the test set is in no row that a schedule sees.
        """
        return ()

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
            history: one row per finished epoch of the trunk, oldest first, each with at least ``epoch``, ``train_loss`` and, where a
                validation part was split off, ``validation_loss``, the further scores of either (``train_accuracy`` in percent), and the
                columns of :attr:`needs`.
        """


_MOMENT = re.compile(r"([0-9]{1,15})\s*(ep|it)?")


@attrs.frozen
class Clock:
    """How long a stretch of training is and how epochs convert to iterations.

    Attributes:
        epochs: length of the stretch.
        iterations_per_epoch: optimizer steps per epoch.
    """

    epochs: int
    iterations_per_epoch: int

    @property
    def iterations(self) -> int:
        """Length of the stretch in optimizer steps."""
        return self.epochs * self.iterations_per_epoch


@functools.total_ordering
@attrs.frozen(order=False)
class Moment:
    """A point of a stretch of training, counted in optimizer steps from its start.

    Attributes:
        iteration: optimizer steps done.
        iterations_per_epoch: the unit that makes epochs of it; moments of different units do not compare.
    """

    iteration: int
    iterations_per_epoch: int

    @classmethod
    def parse(cls, text: str, iterations_per_epoch: int) -> Moment:
        """Read ``"20"`` or ``"20ep"`` (epochs) or ``"500it"`` (optimizer steps).

        Raises:
            ConfigError: the text is none of these.
        """
        match = _MOMENT.fullmatch(text.strip())
        if match is None:
            msg = f"{shown(text)} is not a moment; write epochs as '20' or '20ep', optimizer steps as '500it'"
            raise ConfigError(msg)
        count = int(match[1])
        return cls(count if match[2] == "it" else count * iterations_per_epoch, iterations_per_epoch)

    @property
    def epoch(self) -> float:
        """Epochs done; a fraction inside an epoch."""
        return self.iteration / self.iterations_per_epoch

    def __lt__(self, other: Moment) -> bool:
        if self.iterations_per_epoch != other.iterations_per_epoch:
            msg = f"cannot order {self} and {other}: their epochs have different lengths"
            raise ValueError(msg)
        return self.iteration < other.iteration

    def __str__(self) -> str:
        whole, rest = divmod(self.iteration, self.iterations_per_epoch)
        return f"{self.iteration}it" if rest else f"{whole}ep"
