"""Which average of its weights a stretch of training takes: ``"ema:0.999"``, ``"swa:0.75"``."""

from __future__ import annotations

import re
from typing import Literal

import attrs

from anarch_core.bounds import Between, shown
from anarch_core.errors import ConfigError

_WRITTEN = re.compile(r"(ema|swa)(?::([0-9]*\.?[0-9]{1,20}(?:[eE]-[0-9]{1,3})?))?")

DECAY = Between(0, 1, above=True, below=True)
SINCE = Between(0, 1, below=True)


@attrs.frozen
class WeightAverage:
    """An average of the weights that a stretch of training passes through.

    Attributes:
        kind: ``"ema"``, exponential: that after step i weighs ``number`` to the power of how many steps came after it, and all weigh one
            together, which is the moving average with the bias correction of Kingma and Ba (2015, section 3). ``"swa"``, equal: of those
            at the ends of epochs (Izmailov et al. 2018).
        number: the decay per step of ``"ema"``, above 0 and below 1; of ``"swa"`` the share of the stretch after which it begins, from 0 to
            below 1.
    """

    kind: Literal["ema", "swa"]
    number: float

    @classmethod
    def parse(cls, text: str) -> WeightAverage:
        """Read ``"ema:0.999"`` or ``"swa:0.75"``, which are also what ``"ema"`` and ``"swa"`` alone mean.

        Raises:
            ConfigError: the text is none of these.
        """
        match = _WRITTEN.fullmatch(text.replace(" ", ""))
        if match is None:
            msg = f"{shown(text)} is no average of weights; write 'ema:0.999', the decay per step, or 'swa:0.75', the share to pass over"
            raise ConfigError(msg)
        if match[1] == "ema":
            average = cls("ema", float(match[2] or 0.999))
            allowed, what = DECAY, "the decay of an exponential average"
        else:
            average = cls("swa", float(match[2] or 0.75))
            allowed, what = SINCE, "the share of training that an equal average passes over"
        if average.number not in allowed:
            msg = f"{what} must be a number {allowed}, got {shown(text)}"
            raise ConfigError(msg)
        return average

    def __str__(self) -> str:
        return f"{self.kind}:{self.number!r}"
