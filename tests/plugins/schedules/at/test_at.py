from __future__ import annotations

import pytest

from anarch_core.errors import ConfigError, OptionError
from anarch_core.plugin import options
from anarch_core.schedule import Clock
from anarch_plugins.schedules.at.options import AtOptions
from anarch_plugins.schedules.at.schedule import AtSchedule


def test_epochs_and_optimizer_steps_can_be_mixed():
    moments = AtSchedule(AtOptions(moments=("0", "25it", "4ep", "10"))).moments(Clock(10, 10))
    assert [moment.iteration for moment in moments] == [0, 25, 40, 100]


@pytest.mark.parametrize("text", ["11", "101it"])
def test_a_moment_after_the_end_is_refused(text):
    with pytest.raises(ConfigError, match=f"switch at {text} lies beyond the trunk, which ends after 10 epochs"):
        AtSchedule(AtOptions(moments=("0", text))).moments(Clock(10, 10))


@pytest.mark.parametrize("value", [["soon"], [], ["-1"]])
def test_what_is_no_moment_is_refused_as_an_option(value):
    with pytest.raises(OptionError, match=r"\[at\]"):
        options.build(AtOptions, {"moments": value}, name="at")


def test_there_is_no_default():
    with pytest.raises(OptionError, match=r"\[at\] needs a value for 'moments'"):
        options.build(AtOptions, {}, name="at")


def test_the_short_form_lists_moments():
    assert options.spec_options(AtOptions, "0,10,500it", name="at") == {"moments": ("0", "10", "500it")}
