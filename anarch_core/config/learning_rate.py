"""Learning rates as functions of the optimizer step: ``"constant"``, ``"step:30,60"``, ``"cosine"``, each after a warm-up if wanted."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import attrs

from anarch_core.bounds import shown
from anarch_core.errors import ConfigError
from anarch_core.schedule import Moment

_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,3})?"
_STEP = re.compile(rf"step:([0-9]{{1,7}}(?:,[0-9]{{1,7}})*)(?:@({_NUMBER}))?")
_COSINE = re.compile(rf"cosine(?::({_NUMBER}))?")
_WARMUP = re.compile(r"warmup:([0-9]{1,7})(ep|it)?")

WRITTEN = (
    "'constant', 'cosine', 'step:30,60' or, with a factor, 'step:30,60@0.2'; 'warmup:5' or 'warmup:500it+cosine' for a warm-up before it"
)

HIGHEST = 10**6
"""A learning rate above which nothing is trained."""


@attrs.frozen(kw_only=True)
class LearningRate:
    """The learning rate of one stretch of training.

    It depends on the optimizer step alone, so a resumed stretch continues exactly where it stopped.

    Attributes:
        base: value at the first step, or after the warm-up.
        epochs: length of the stretch.
        kind: ``"constant"``; ``"step"``, multiplied by ``gamma`` at the start of every milestone; ``"cosine"``, half a cosine from ``base``
            to ``floor`` over what the warm-up leaves of the stretch, updated at every step (Loshchilov and Hutter 2017, equation 5,
            without restarts).
        milestones: epochs at which ``"step"`` acts, ascending, counted from the start of the stretch, its warm-up included.
        gamma: factor of ``"step"``.
        floor: where ``"cosine"`` ends.
        warmup: moment at which the warm-up ends, ``"5ep"`` or ``"500it"``; empty without one. Step i of its w steps, the first being 0,
            has the rate base · (i + 1) / w: it grows by the same amount at every step (Goyal et al. 2017, section 2.2).
    """

    base: float
    epochs: int
    kind: Literal["constant", "step", "cosine"] = "constant"
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    floor: float = 0.0
    warmup: str = ""

    @classmethod
    def parse(cls, text: str, *, base: float, epochs: int) -> LearningRate:
        """Read ``"constant"``, ``"cosine"``, ``"cosine:0.001"`` (with a floor), ``"step:30,60"``, ``"step:30,60@0.2"`` (with a factor).

        A warm-up comes first: ``"warmup:5+cosine"``, in optimizer steps ``"warmup:500it+cosine"``; ``"warmup:5"`` is
        ``"warmup:5+constant"``.

        Raises:
            ConfigError: the text is none of these, the learning rate would rise above :data:`HIGHEST` or never fall to its floor, or the
                stretch ends before the warm-up.
        """
        rate = cls(base=base, epochs=epochs, **read(text))
        if base > 0 and rate.gamma > 1 and math.log10(base) + len(rate.milestones) * math.log10(rate.gamma) > math.log10(HIGHEST):
            msg = f"{shown(text)} makes the learning rate larger than {HIGHEST:,}; take a smaller factor, below 1 to lower it"
            raise ConfigError(msg)
        if rate.floor > base:
            msg = f"{shown(text)} ends at {rate.floor:g}, above the {base:g} that it starts from; take a lower end"
            raise ConfigError(msg)
        if rate.warmup.endswith("ep"):
            rate.require_room(epochs, 1)
        return rate

    def require_room(self, iterations: int, iterations_per_epoch: int) -> None:
        """Refuse a warm-up that lasts as long as what is trained, or beyond the first milestone.

        Raises:
            ConfigError: it does.
        """
        warm = self._warm(iterations_per_epoch)
        if warm >= iterations:
            length = Moment(iterations, iterations_per_epoch)
            msg = f"the warm-up of {self.warmup} leaves nothing of a stretch of {length} to train at the full learning rate; shorten it"
            raise ConfigError(msg)
        if self.milestones and warm > self.milestones[0] * iterations_per_epoch:
            msg = (
                f"epoch {self.milestones[0]}, where the learning rate is to step, lies within the warm-up of {self.warmup}: epochs count "
                "from the start of the stretch, warm-up included"
            )
            raise ConfigError(msg)

    def at(self, iteration: int, iterations_per_epoch: int) -> float:
        """Learning rate of optimizer step ``iteration`` (the first is 0)."""
        warm = self._warm(iterations_per_epoch)
        if iteration < warm:
            return self.base * (iteration + 1) / warm
        if self.kind == "step":
            passed = sum(iteration >= epoch * iterations_per_epoch for epoch in self.milestones)
            return self.base * self.gamma**passed
        if self.kind == "cosine":
            turn = math.pi * (iteration - warm) / (self.epochs * iterations_per_epoch - warm)
            return self.floor + (self.base - self.floor) * (1 + math.cos(turn)) / 2
        return self.base

    def _warm(self, iterations_per_epoch: int) -> int:
        return Moment.parse(self.warmup, iterations_per_epoch).iteration if self.warmup else 0


def read(text: str) -> dict[str, Any]:
    """What a text says of a learning rate, as arguments of :class:`LearningRate`.

    Raises:
        ConfigError: it is none of those that :meth:`LearningRate.parse` reads.
    """
    first, plus, rest = text.replace(" ", "").partition("+")
    warmup = _WARMUP.fullmatch(first)
    if warmup is None:
        return _read(first if not plus else f"{first}+{rest}", text)
    if int(warmup[1]) == 0:
        msg = f"the warm-up of {shown(text)} has no length; leave it out, or give epochs as 'warmup:5', optimizer steps as 'warmup:500it'"
        raise ConfigError(msg)
    after = _read(rest, text) if plus else {}
    return {**after, "warmup": f"{int(warmup[1])}{warmup[2] or 'ep'}"}


def _read(part: str, text: str) -> dict[str, Any]:
    """What comes after a warm-up, if there is one; ``text`` is all that was given."""
    if part == "constant":
        return {}
    if cosine := _COSINE.fullmatch(part):
        return {"kind": "cosine", "floor": float(cosine[1] or 0.0)}
    step = _STEP.fullmatch(part)
    if step is None:
        msg = f"{shown(text)} is not a learning-rate schedule; write {WRITTEN}"
        raise ConfigError(msg)
    milestones = tuple(int(epoch) for epoch in step[1].split(","))
    if list(milestones) != sorted(set(milestones)):
        msg = f"the epochs of {shown(text)} must ascend"
        raise ConfigError(msg)
    return {"kind": "step", "milestones": milestones, "gamma": float(step[2] or 0.1)}
