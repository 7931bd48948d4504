"""A wrong schedule is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_core.testing import ScheduleConformance

Kit = Callable[..., Any]


class Never(AbstractSchedule):
    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        return ()

    def switches_now(self, history: Any) -> bool:
        return False


class Outside(Never):
    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        return (Moment(clock.iterations + 1, clock.iterations_per_epoch),)


class Fickle(Never):
    calls = 0

    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        self.calls += 1
        return (Moment(min(self.calls, clock.iterations), clock.iterations_per_epoch),)


class Counting(Never):
    calls = 0

    def switches_now(self, history: Any) -> bool:
        self.calls += 1
        return self.calls == 3


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (Never, "test_switches_at_all", r"the schedule never switches: moments\(\) is empty"),
        (Outside, "test_moments_lie_on_the_trunk", "lies outside the trunk of 1 steps; leave it out, or raise ConfigError"),
        (Fickle, "test_moments_depend_on_the_clock_alone", "it gives other moments; .* or a resumed run switches elsewhere"),
        (Counting, "test_switches_depend_on_the_history_alone", "keep nothing on self: a resumed run starts with a fresh instance"),
    ],
)
def test_a_wrong_schedule(fails: Kit, plugin: Kit, target: type, check: str, message: str) -> None:
    plugin("schedule", target)
    fails(ScheduleConformance, check, message)
