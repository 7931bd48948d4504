"""Switching when the loss stops falling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_plugins.schedules.plateau.options import PlateauOptions


class PlateauSchedule(AbstractSchedule):
    """Switches at the end of the epoch in which the loss has not improved for ``patience`` epochs.

    The loss is that of the validation part where one was split off, else the training loss; never the test loss. A plateau counts once: the
    schedule does not fire again until the loss has improved on its best. A loss that is not a number is no improvement.
    """

    options: PlateauOptions

    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        """None: plateaus are recognised while the trunk trains."""
        return ()

    def switches_now(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether a plateau has just become ``patience`` epochs long."""
        best, waited = math.inf, 0
        for row in history:
            loss = row.get("validation_loss", row["train_loss"])
            if loss < best - self.options.min_delta:
                best, waited = loss, 0
            else:
                waited += 1
        return waited == self.options.patience
