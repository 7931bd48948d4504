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


class Peeking(Never):
    @property
    def needs(self) -> tuple[str, ...]:
        return ("test_loss",)


class Text(Never):
    @property
    def needs(self) -> str:
        return "gradient_norm"


class Forgetful(Never):
    """Looks at what it does not say that it needs."""

    def switches_now(self, history: Any) -> bool:
        return bool(history[-1]["gradient_norm"] < 1)


class Careless(Never):
    """Takes every row to have what it needs."""

    needs = ("hessian.trace",)

    def switches_now(self, history: Any) -> bool:
        return bool(history[-1]["hessian.trace"] < 1)


class Moody(Never):
    calls = 0

    @property
    def needs(self) -> tuple[str, ...]:
        self.calls += 1
        return ("gradient_norm",) * self.calls


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (Never, "test_switches_at_all", r"the schedule never switches: moments\(\) is empty"),
        (Outside, "test_moments_lie_on_the_trunk", "lies outside the trunk of 1 steps; leave it out, or raise ConfigError"),
        (Fickle, "test_moments_depend_on_the_clock_alone", "it gives other moments; .* or a resumed run switches elsewhere"),
        (Peeking, "test_needs_are_columns", "it needs 'test_loss', but the test set decides nothing; take 'validation_loss'"),
        (Text, "test_needs_are_columns", "needs gives the text 'gradient_norm', expected a tuple of texts"),
        (Moody, "test_needs_are_columns", "make them a function of the options"),
        (Forgetful, "test_switches_depend_on_the_history_alone", "looks at 'gradient_norm', which .*; name it in `needs`"),
        (Careless, "test_switches_depend_on_the_history_alone", r"looks at 'hessian.trace', which .*; take row.get\(\)"),
        (Counting, "test_switches_depend_on_the_history_alone", "keep nothing on self: a resumed run starts with a fresh instance"),
    ],
)
def test_a_wrong_schedule(fails: Kit, plugin: Kit, target: type, check: str, message: str) -> None:
    plugin("schedule", target)
    fails(ScheduleConformance, check, message)
