from __future__ import annotations

import pytest

from anarch_core.errors import OptionError
from anarch_core.plugin import options
from anarch_core.schedule import Clock
from anarch_plugins.schedules.log.options import LogOptions
from anarch_plugins.schedules.log.schedule import LogSchedule

PAPER = [0, 1, 2, 3, 4, 6, 8, 10, 13, 18, 23, 30, 40, 52, 67, 88, 115, 150]


def epochs(saves: int, length: int) -> list[float]:
    return [moment.epoch for moment in LogSchedule(LogOptions(saves=saves)).moments(Clock(length, 7))]


def test_twenty_saves_over_150_epochs_are_the_papers_switch_times():
    assert epochs(20, 150) == PAPER


@pytest.mark.parametrize(("saves", "length"), [(2, 1), (2, 10), (50, 3), (4, 1000), (20, 300)])
def test_moments_ascend_from_the_start_to_the_very_end(saves, length):
    found = epochs(saves, length)
    assert found == sorted(set(found))
    assert found[0] == 0
    assert found[-1] == length


def test_whole_powers_do_not_fall_one_epoch_short():
    assert epochs(4, 1000) == [0, 1, 10, 100, 1000]


def test_nothing_is_decided_while_the_trunk_trains():
    assert not LogSchedule(LogOptions()).switches_now([{"epoch": 1, "train_loss": 1.0}])


def test_one_point_is_no_spacing():
    with pytest.raises(OptionError, match=r"\[log\] 'saves'"):
        options.build(LogOptions, {"saves": 1}, name="log")
