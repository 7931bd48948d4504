from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from anarch_plugins.workers.slurm.options import SlurmOptions, minutes


@pytest.mark.parametrize(
    ("time", "expected"),
    [("90m", 90), ("4h", 240), ("2d", 2880), ("12:00:00", 720), ("0:30", 30), ("00:00:01", 1), ("1-12:00:00", 2160), ("1-00:00", 1440)],
)
def test_times_are_written_as_slurm_and_people_write_them(time, expected):
    assert minutes(time) == expected


@pytest.mark.parametrize("time", ["", "4", "4 h", "4h30m", "-1h", "0m", "00:00", "1-2-3", "1.5h", "4H", "90", "1:2", "4h\n"])
def test_what_is_no_time_is_refused_with_what_is(time):
    with pytest.raises(ValueError, match=r"no time that Slurm knows; expected 90m, 4h|no time at all"):
        SlurmOptions(time=time)


@pytest.mark.parametrize(
    "given",
    [
        {"partition": "a b"},
        {"account": ""},
        {"qos": "x\n#SBATCH --uid=0"},
        {"constraint": "é"},
        {"memory": "16 GB"},
        {"memory": "0G"},
        {"memory": "lots"},
        {"gpus": -1},
        {"setup": ("one\ntwo",)},
    ],
)
def test_nothing_is_written_into_a_batch_script_that_does_not_belong_there(given):
    with pytest.raises(ValueError, match=r"no name of Slurm's|no amount|must be from|without a line break"):
        SlurmOptions(**given)


def test_what_sbatch_takes_is_taken():
    SlurmOptions(
        partition="gpu,long", account="a_b-1", constraint="(a100&ib)|h100", memory="900M", setup=("module load cuda", "ulimit -n 4096")
    )


def test_the_page_on_scaling_has_every_option_and_no_other():
    page = (Path(__file__).parents[4] / "docs" / "scaling.md").read_text()
    assert set(re.findall(r"--slurm-(\w+)", page)) == {field.name for field in attrs.fields(SlurmOptions)}
