from __future__ import annotations

import math

import pytest

from anarch_core.errors import OptionError
from anarch_core.plugin.registry import get_registry
from anarch_core.schedule import Clock
from anarch_plugins.schedules.when.condition import Condition
from anarch_plugins.schedules.when.options import WhenOptions
from anarch_plugins.schedules.when.schedule import WhenSchedule


def fires(condition, values, **options):
    """Epochs at whose end the schedule switches, asked after every epoch as the runner does; None is a row without the number."""
    schedule = WhenSchedule(WhenOptions(condition=condition, **options))
    [column] = schedule.needs
    rows = [{"epoch": epoch} if value is None else {"epoch": epoch, column: value} for epoch, value in enumerate(values, start=1)]
    return [epoch for epoch in range(1, len(rows) + 1) if schedule.switches_now(rows[:epoch])]


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("gradient_norm<0.5", Condition("gradient_norm", "below", 0.5)),
        ("gradient_norm < .5", Condition("gradient_norm", "below", 0.5)),
        ("gradient_norm below 5e-1", Condition("gradient_norm", "below", 0.5)),
        ("gradient_norm:below:0.5", Condition("gradient_norm", "below", 0.5)),
        ("hessian:20.lambda_max>-1", Condition("hessian:20.lambda_max", "above", -1.0)),
        ("train_accuracy above 60", Condition("train_accuracy", "above", 60.0)),
        ("validation_loss rises", Condition("validation_loss", "rises")),
        ("validation_loss:falls", Condition("validation_loss", "falls")),
    ],
)
def test_conditions_are_written_with_signs_or_words(text, condition):
    assert Condition.parse(text) == condition


@pytest.mark.parametrize(
    "text", ["gradient_norm", "gradient_norm<", "<3", "a<b", "a<1<2", "a==1", "rises", "a<1e999", "", "a below", "a<nan"]
)
def test_what_is_no_condition_is_refused_in_one_line(text):
    with pytest.raises(OptionError, match="is no condition; write COLUMN < LEVEL, COLUMN > LEVEL, COLUMN rises or COLUMN falls") as refused:
        get_registry().create("schedule", "when", {"condition": text})
    assert "\n" not in str(refused.value)


def test_it_switches_at_the_first_epoch_of_which_the_condition_holds():
    assert fires("gradient_norm<0.5", [2, 1, 0.5, 0.4, 0.3]) == [4]
    assert fires("train_accuracy>60", [70, 80]) == [1]


def test_it_may_switch_each_time_the_level_is_crossed():
    values = [2, 0, 0, 2, 0, 2, 2, 0]
    assert fires("a<1", values) == [2]
    assert fires("a<1", values, times=2) == [2, 5]
    assert fires("a<1", values, times=None) == [2, 5, 8]


def test_a_margin_keeps_noise_about_the_level_from_counting_as_crossings():
    values = [2, 0.9, 1.1, 0.9, 1.6, 0.9]
    assert fires("a<1", values, times=None) == [2, 4, 6]
    assert fires("a<1", values, times=None, margin=0.5) == [2, 6]
    assert fires("a>1", [-value + 2 for value in values], times=None, margin=0.5) == [2, 6]


def test_it_may_have_to_hold_for_some_rows_in_a_row():
    assert fires("a<1", [0, 2, 0, 0, 2, 0, 0, 0], epochs=2, times=None) == [4, 7]


def test_rising_is_above_the_row_before():
    assert fires("validation_loss rises", [3, 2, 1, 1, 1.1, 1.2]) == [5]
    assert fires("validation_loss rises", [3, 2, 2.1, 2, 2.1, 2.2, 2.3, 2, 3], epochs=2, times=None) == [6]
    assert fires("validation_loss falls", [1, 2, 1]) == [3]


def test_rows_without_the_number_are_passed_over():
    assert fires("hessian.lambda_max>5", [1, None, 6, None, math.nan, 7, 1, None, 8], times=None) == [3, 9]
    assert fires("hessian.lambda_max rises", [3, None, math.nan, 4]) == [4]


def test_nothing_is_known_beforehand():
    assert WhenSchedule(WhenOptions(condition="a<1")).moments(Clock(10, 10)) == ()
