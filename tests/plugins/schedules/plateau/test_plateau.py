from __future__ import annotations

import math

import pytest

from anarch_core.schedule import Clock
from anarch_plugins.schedules.plateau.options import PlateauOptions
from anarch_plugins.schedules.plateau.schedule import PlateauSchedule


def fires(losses, *, key="train_loss", patience=2, min_delta=0.0):
    """Epochs at whose end the schedule switches, asked after every epoch as the runner does."""
    schedule = PlateauSchedule(PlateauOptions(patience=patience, min_delta=min_delta))
    rows = [{"epoch": epoch, "train_loss": 1.0, key: loss} for epoch, loss in enumerate(losses, start=1)]
    return [epoch for epoch in range(1, len(rows) + 1) if schedule.switches_now(rows[:epoch])]


def test_a_falling_loss_never_switches():
    assert fires([5, 4, 3, 2, 1]) == []


def test_it_switches_when_patience_has_run_out():
    assert fires([3, 2, 2, 2]) == [4]


def test_a_plateau_counts_once_however_long():
    assert fires([3, 2, 2, 2, 2, 2, 2, 2]) == [4]


def test_after_an_improvement_the_next_plateau_counts_again():
    assert fires([3, 3, 3, 2, 2, 2]) == [3, 6]


@pytest.mark.parametrize(("min_delta", "expected"), [(0.0, []), (0.5, [3, 6])])
def test_small_improvements_may_count_as_none(min_delta, expected):
    assert fires([3.0, 2.9, 2.8, 2.0, 1.9, 1.8], min_delta=min_delta) == expected


def test_the_validation_loss_decides_where_there_is_one():
    assert fires([3, 2, 2, 2], key="validation_loss") == [4]
    assert fires([4, 3, 2, 1], key="validation_loss") == []


def test_a_loss_that_is_not_a_number_is_no_improvement():
    assert fires([3, math.nan, math.nan]) == [3]


def watching(column, values, **options):
    schedule = PlateauSchedule(PlateauOptions(patience=2, column=column, **options))
    assert schedule.needs == (column,)
    rows = [{"train_loss": 1.0} if value is None else {"train_loss": 1.0, column: value} for value in values]
    return [epoch for epoch in range(1, len(rows) + 1) if schedule.switches_now(rows[:epoch])]


def test_another_column_may_be_watched():
    assert PlateauSchedule(PlateauOptions()).needs == ()
    assert watching("gradient_norm", [3, 2, 2, 2]) == [4]
    assert watching("train_accuracy", [50, 60, 60, 55, 70, 70, 70], mode="max") == [4, 7]


def test_rows_without_the_watched_number_are_passed_over():
    assert watching("hessian.lambda_max", [3, None, 4, None, 5, None]) == [5]


def test_nothing_is_known_beforehand():
    assert PlateauSchedule(PlateauOptions()).moments(Clock(10, 10)) == ()
