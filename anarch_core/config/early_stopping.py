"""When a stretch of training ends before its epochs do: ``"validation_loss:10"``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs

from anarch_core.bounds import Between, shown
from anarch_core.errors import ConfigError

_WRITTEN = re.compile(r"(?:([a-z][a-z0-9_]{0,60}):)?([0-9]{1,7})")

PATIENCE = Between(1, 10**6)

_PARTS = ("validation", "train")


@attrs.frozen
class EarlyStopping:
    """Ends a stretch of training once a score has not improved for some epochs.

    It is a function of the history alone, so a resumed stretch ends where it would have ended.

    Attributes:
        score: a key of history rows, never one of the test set: ``"validation_loss"``, ``"train_accuracy"``, or of another score of the
            objective.
        patience: epochs.
    """

    score: str
    patience: int

    @classmethod
    def parse(cls, text: str) -> EarlyStopping:
        """Read ``"validation_accuracy:10"``; ``"10"`` is ``"validation_loss:10"``.

        Raises:
            ConfigError: the text is none of these, or names a score that must not decide.
        """
        match = _WRITTEN.fullmatch(text.replace(" ", ""))
        if match is None or int(match[2]) not in PATIENCE:
            msg = f"expected epochs without improvement, as in '10' or 'validation_accuracy:10', {PATIENCE}, got {shown(text)}"
            raise ConfigError(msg)
        score = match[1] or "validation_loss"
        part, _, name = score.partition("_")
        if part == "test":
            msg = f"{score} is of the test set, which is only reported and decides nothing; take 'validation_{name}:{match[2]}'"
            raise ConfigError(msg)
        if part not in _PARTS or not name:
            msg = f"{shown(score)} is no score of a part of the data; write 'validation_loss:{match[2]}', or 'train_loss:{match[2]}'"
            raise ConfigError(msg)
        return cls(score, int(match[2]))

    @property
    def validates(self) -> bool:
        """Whether it needs a part of the training set that is held out."""
        return self.score.startswith("validation_")

    def higher_is_better(self, scores: Mapping[str, bool]) -> bool:
        """The direction in which the score improves.

        Args:
            scores: the direction of each score that there is, by its name without the part of the data.

        Raises:
            ConfigError: there is no such score.
        """
        name = self.score.partition("_")[2]
        if name not in scores:
            known = ", ".join(f"{part}_{name}" for part in _PARTS for name in scores)
            msg = f"stop_early: {shown(self.score)} is not known of an epoch; take one of {known}"
            raise ConfigError(msg)
        return scores[name]

    def reason(self, history: Sequence[Mapping[str, float | None]], *, higher_is_better: bool) -> str | None:
        """Why training ends now, as a half sentence; None as long as it goes on.

        Args:
            history: one row per epoch, oldest first, that of epoch 0 left out.
            higher_is_better: the direction of the score.
        """
        sign = 1 if higher_is_better else -1
        best: Mapping[str, float | None] | None = None
        waited = 0
        for row in history:
            value, highest = row.get(self.score), None if best is None else best[self.score]
            if value is not None and (highest is None or sign * value > sign * highest):
                best, waited = row, 0
            else:
                waited += 1
        if waited < self.patience:
            return None
        epochs = "for an epoch" if self.patience == 1 else f"for {self.patience} epochs"
        found = "" if best is None else f" (best {best[self.score]:.4g} in epoch {best['epoch']:g})"
        return f"{self.score} has not improved {epochs}{found}"

    def __str__(self) -> str:
        return f"{self.score}:{self.patience}"
