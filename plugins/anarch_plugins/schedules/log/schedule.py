"""The paper's switch times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_plugins.schedules.log.options import LogOptions


class LogSchedule(AbstractSchedule):
    """Epoch 0, and the whole part of n points spaced evenly in the logarithm from epoch 1 to the last.

    Twenty points over 150 epochs give the paper's 0, 1, 2, 3, 4, 6, 8, 10, 13, 18, 23, 30, 40, 52, 67, 88, 115, 150.
    """

    options: LogOptions

    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        """Epoch 0 and the logarithmically spaced epochs, ascending."""
        intervals = self.options.saves - 1
        # A power that is a whole number, such as 1000^(1/3), may come out just below it.
        spaced = {int(clock.epochs ** (i / intervals) + 1e-9) for i in range(intervals + 1)}
        return tuple(Moment(epoch * clock.iterations_per_epoch, clock.iterations_per_epoch) for epoch in sorted({0} | spaced))

    def switches_now(self, history: Sequence[Mapping[str, float]]) -> bool:
        """False: all moments are known beforehand."""
        return False
