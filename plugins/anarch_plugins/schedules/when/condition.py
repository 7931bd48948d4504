"""What has to hold of an epoch: ``gradient_norm < 0.5``, ``train_accuracy above 60``, ``validation_loss rises``."""

from __future__ import annotations

import math
import re
from typing import Literal, cast

import attrs

Relation = Literal["below", "above", "rises", "falls"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_CONDITION = re.compile(
    rf"(?P<column>[^\s<>]+?)(?:\s*(?P<sign>[<>])\s*|[\s:]+(?P<word>below|above)[\s:]+)(?P<level>{_NUMBER})"
    r"|(?P<trend_of>[^\s<>]+?)[\s:]+(?P<trend>rises|falls)"
)


@attrs.frozen
class Condition:
    """A relation between a column of the history and a level, or the row before.

    Attributes:
        column: of the history.
        relation: what has to hold.
        level: for ``"below"`` and ``"above"``.
    """

    column: str
    relation: Relation
    level: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Condition:
        """Read ``"COLUMN < LEVEL"``, ``"COLUMN > LEVEL"``, ``"COLUMN rises"`` or ``"COLUMN falls"``.

        ``below`` and ``above`` may stand for the signs, and colons for the spaces around words, which needs no quotes in a shell.

        Raises:
            ValueError: the text is none of these.
        """
        match = _CONDITION.fullmatch(text.strip())
        if match is None or not math.isfinite(float(match["level"] or 0)):
            msg = (
                f"{text!r} is no condition; write COLUMN < LEVEL, COLUMN > LEVEL, COLUMN rises or COLUMN falls, with quotes around it in a "
                "shell, or COLUMN:below:LEVEL"
            )
            raise ValueError(msg)
        if match["trend"] is not None:
            return cls(match["trend_of"], cast("Relation", match["trend"]))
        words: dict[str, Relation] = {"<": "below", ">": "above"}
        return cls(match["column"], words.get(match["sign"], cast("Relation", match["word"])), float(match["level"]))

    def holds(self, value: float, before: float | None) -> bool:
        """Whether it holds of a number.

        Args:
            value: in the row that is asked about.
            before: in the last row before it that has a number.
        """
        if self.relation == "below":
            return value < self.level
        if self.relation == "above":
            return value > self.level
        if before is None:
            return False
        return value > before if self.relation == "rises" else value < before

    def undone(self, value: float, margin: float) -> bool:
        """Whether a number lies so far on the other side of the level that crossing it again counts; for trends, whether it does not hold.

        Args:
            value: of which the condition does not hold.
            margin: beyond the level.
        """
        if self.relation == "below":
            return value >= self.level + margin
        return self.relation != "above" or value <= self.level - margin
