"""When a stretch of training ends before its epochs do: ``"validation_loss:10"``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import attrs

from anarch_core.bounds import Between, shown
from anarch_core.errors import ConfigError

_WRITTEN = re.compile(r"(?:([a-z][a-z0-9_]{0,60}):)?([0-9]{1,7})")

PATIENCE = Between(1, 10**6)

HIGHER_IS_BETTER = {"loss": False, "accuracy": True}
"""The scores of a network, and their direction."""


@attrs.frozen
class EarlyStopping:
    """Ends a stretch of training once a score has not improved for some epochs.

    It is a function of the history alone, so a resumed stretch ends where it would have ended.

    Attributes:
        score: a key of history rows, never one of the test set: ``"validation_loss"``, ``"train_accuracy"``, ...
        patience: epochs.
    """

    score: str
    patience: int

    @classmethod
    def parse(cls, text: str) -> EarlyStopping:
        """Read ``"validation_accuracy:10"``; ``"10"`` is ``"validation_loss:10"``.

        Raises:
            ConfigError: the text is none of these, or names a score that there is not or that must not decide.
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
        if part not in ("train", "validation") or name not in HIGHER_IS_BETTER:
            known = ", ".join(f"{part}_{name}" for part in ("validation", "train") for name in HIGHER_IS_BETTER)
            msg = f"{shown(score)} is not known of an epoch; take one of {known}"
            raise ConfigError(msg)
        return cls(score, int(match[2]))

    @property
    def validates(self) -> bool:
        """Whether it needs a part of the training set that is held out."""
        return self.score.startswith("validation_")

    def reason(self, history: Sequence[Mapping[str, float | None]]) -> str | None:
        """Why training ends now, as a half sentence; None as long as it goes on.

        Args:
            history: one row per epoch, oldest first, that of epoch 0 left out.
        """
        sign = 1 if HIGHER_IS_BETTER[self.score.partition("_")[2]] else -1
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
