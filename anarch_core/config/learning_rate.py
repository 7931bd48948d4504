"""Learning rates as functions of the optimizer step: ``"constant"``, ``"step:30,60"``, ``"cosine"``."""

from __future__ import annotations

import math
import re
from typing import Literal

import attrs

from anarch_core.bounds import shown
from anarch_core.errors import ConfigError

_STEP = re.compile(r"step:([0-9]{1,7}(?:,[0-9]{1,7})*)(?:@([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,3})?))?")

HIGHEST = 10**6
"""A learning rate above which nothing is trained."""


@attrs.frozen(kw_only=True)
class LearningRate:
    """The learning rate of one stretch of training.

    It depends on the optimizer step alone, so a resumed stretch continues exactly where it stopped.

    Attributes:
        base: value at the first step.
        epochs: length of the stretch.
        kind: ``"constant"``; ``"step"``, multiplied by ``gamma`` at the start of every milestone; ``"cosine"``, half a cosine from ``base``
            to zero over the stretch, updated at every step (Loshchilov and Hutter 2017, equation 5, without restarts).
        milestones: epochs at which ``"step"`` acts, ascending, counted from the start of the stretch.
        gamma: factor of ``"step"``.
    """

    base: float
    epochs: int
    kind: Literal["constant", "step", "cosine"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1

    @classmethod
    def parse(cls, text: str, *, base: float, epochs: int) -> LearningRate:
        """Read ``"constant"``, ``"cosine"``, ``"step:30,60"`` or, with another factor than 0.1, ``"step:30,60@0.2"``.

        Raises:
            ConfigError: the text is none of these, or the learning rate would rise above :data:`HIGHEST`.
        """
        if text == "constant":
            return cls(base=base, epochs=epochs)
        if text == "cosine":
            return cls(base=base, epochs=epochs, kind="cosine")
        match = _STEP.fullmatch(text.replace(" ", ""))
        if match is None:
            written = "'constant', 'cosine', 'step:30,60' or, with a factor, 'step:30,60@0.2'"
            msg = f"{shown(text)} is not a learning-rate schedule; write {written}"
            raise ConfigError(msg)
        milestones = tuple(int(epoch) for epoch in match[1].split(","))
        if list(milestones) != sorted(set(milestones)):
            msg = f"the epochs of {shown(text)} must ascend"
            raise ConfigError(msg)
        gamma = float(match[2] or 0.1)
        if base > 0 and gamma > 1 and math.log10(base) + len(milestones) * math.log10(gamma) > math.log10(HIGHEST):
            msg = f"{shown(text)} makes the learning rate larger than {HIGHEST:,}; take a smaller factor, below 1 to lower it"
            raise ConfigError(msg)
        return cls(base=base, epochs=epochs, kind="step", milestones=milestones, gamma=gamma)

    def at(self, iteration: int, iterations_per_epoch: int) -> float:
        """Learning rate of optimizer step ``iteration`` (the first is 0)."""
        if self.kind == "step":
            passed = sum(iteration >= epoch * iterations_per_epoch for epoch in self.milestones)
            return self.base * self.gamma**passed
        if self.kind == "cosine":
            return self.base * (1 + math.cos(math.pi * iteration / (self.epochs * iterations_per_epoch))) / 2
        return self.base
