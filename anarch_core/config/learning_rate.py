"""Learning rates as functions of the optimizer step: ``"constant"``, ``"step:30,60"``, ``"cosine"``."""

from __future__ import annotations

import math
import re
from typing import Literal

import attrs

from anarch_core.errors import ConfigError

_STEP = re.compile(r"step:(\d+(?:,\d+)*)(?:@(\d*\.?\d+(?:[eE][+-]?\d+)?))?")


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
            ConfigError: the text is none of these.
        """
        if text == "constant":
            return cls(base=base, epochs=epochs)
        if text == "cosine":
            return cls(base=base, epochs=epochs, kind="cosine")
        match = _STEP.fullmatch(text.replace(" ", ""))
        if match is None:
            msg = f"{text!r} is not a learning-rate schedule; write 'constant', 'cosine', 'step:30,60' or, with a factor, 'step:30,60@0.2'"
            raise ConfigError(msg)
        milestones = tuple(int(epoch) for epoch in match[1].split(","))
        if list(milestones) != sorted(set(milestones)):
            msg = f"the epochs of {text!r} must ascend"
            raise ConfigError(msg)
        return cls(base=base, epochs=epochs, kind="step", milestones=milestones, gamma=float(match[2] or 0.1))

    def at(self, iteration: int, iterations_per_epoch: int) -> float:
        """Learning rate of optimizer step ``iteration`` (the first is 0)."""
        if self.kind == "step":
            passed = sum(iteration >= epoch * iterations_per_epoch for epoch in self.milestones)
            return self.base * self.gamma**passed
        if self.kind == "cosine":
            return self.base * (1 + math.cos(math.pi * iteration / (self.epochs * iterations_per_epoch))) / 2
        return self.base
