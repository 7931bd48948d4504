"""Moments of training: ``"20ep"``, ``"500it"``, ``"20"`` (epochs)."""

from __future__ import annotations

import functools
import re

import attrs

from anarch_core.errors import ConfigError

_MOMENT = re.compile(r"(\d+)\s*(ep|it)?")


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
            msg = f"{text!r} is not a moment; write epochs as '20' or '20ep', optimizer steps as '500it'"
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
