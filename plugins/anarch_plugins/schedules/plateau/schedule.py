"""Switching when the loss stops falling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_plugins.schedules.plateau.options import PlateauOptions


class PlateauSchedule(AbstractSchedule):
    """Switches at the end of the epoch in which the loss has not improved for ``patience`` epochs.

    The loss is that of the validation part where one was split off, else the training loss; never the test loss. A plateau counts once: the
    schedule does not fire again until the loss has improved on its best. A loss that is not a number is no improvement. With ``column``,
    the same of another number; rows that do not have it are passed over.
    """

    options: PlateauOptions

    @property
    def needs(self) -> Sequence[str]:
        """The column, where one is named."""
        return () if self.options.column is None else (self.options.column,)

    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        """None: plateaus are recognised while the trunk trains."""
        return ()

    def switches_now(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether a plateau has just become ``patience`` epochs long."""
        sign = 1 if self.options.mode == "min" else -1
        best, waited, now = math.inf, 0, False
        for row in history:
            value = self._of(row)
            now = value is not None
            if value is None:
                continue
            if sign * value < best - self.options.min_delta:
                best, waited = sign * value, 0
            else:
                waited += 1
        return now and waited == self.options.patience

    def _of(self, row: Mapping[str, float]) -> float | None:
        if self.options.column is not None:
            return row.get(self.options.column)
        return row.get("validation_loss", row["train_loss"])
