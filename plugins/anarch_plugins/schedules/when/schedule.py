"""Switching when something happens to a number of the trunk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_plugins.schedules.when.condition import Condition
from anarch_plugins.schedules.when.options import WhenOptions


class WhenSchedule(AbstractSchedule):
    """Switches at the end of the epoch in which a condition has held for ``epochs`` rows, once each time that it comes to hold.

    It comes to hold again after it did not hold in a row and, for levels, the number was back by ``margin``. Rows without the number, or in
    which it is nan, are passed over. ``rises`` and ``falls`` compare with the last row before that has the number.
    """

    options: WhenOptions

    @property
    def needs(self) -> Sequence[str]:
        """The column of the condition."""
        return (self._condition.column,)

    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        """None: what happens is seen while the trunk trains."""
        return ()

    def switches_now(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether the condition has just held for long enough, and not too often before."""
        condition, options = self._condition, self.options
        switches, held, armed, now = 0, 0, True, False
        before: float | None = None
        for row in history:
            value, now = row.get(condition.column, math.nan), False
            if math.isnan(value):
                continue
            if condition.holds(value, before):
                held += 1
                if armed and held >= options.epochs:
                    switches, armed = switches + 1, False
                    now = options.times is None or switches <= options.times
            else:
                held = 0
                armed = armed or condition.undone(value, options.margin)
            before = value
        return now

    @property
    def _condition(self) -> Condition:
        return Condition.parse(self.options.condition)
