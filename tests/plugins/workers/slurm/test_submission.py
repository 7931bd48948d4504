"""What is written down of jobs, and what they leave."""

from __future__ import annotations

import pytest

from anarch_core.errors import RunError
from anarch_plugins.workers.slurm.submission import LONGEST, Submission


def test_what_is_written_down_is_found_again(tmp_path):
    made = Submission.begin(tmp_path, ["a", "b"])
    assert Submission.all_of(tmp_path) == [made]
    assert [made.events(index).read_bytes() for index in range(2)] == [b"", b""]
    made.remove()
    assert Submission.all_of(tmp_path) == []


@pytest.mark.parametrize("what", ["link", "file"])
def test_nothing_is_written_elsewhere(tmp_path, what):
    (tmp_path / "run").mkdir()
    if what == "link":
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "run" / "jobs").symlink_to(tmp_path / "elsewhere")
    else:
        (tmp_path / "run" / "jobs").write_text("")
    with pytest.raises(RunError, match="is no folder of its own"):
        Submission.begin(tmp_path / "run", ["a"])


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, None),
        ({"17_0_log.out": b""}, ""),
        ({"17_0_log.out": b"one\ntwo\n\n", "17_0_log.err": b"\n"}, "two"),
        ({"17_0_log.out": b"two", "17_0_log.err": b"killed"}, "killed"),
        ({"17_0_log.err": b"\x1b[2Jred\xff\r\n"}, "[2Jred\ufffd"),
        ({"17_0_log.err": b"why\nsrun: error: n2: task 0: Exited with exit code 1\n"}, "why"),
        ({"17_0_log.err": b"srun: error: no such program\n"}, "srun: error: no such program"),
        ({"17_0_log.err": b"x" * 10_000_000}, "x" * LONGEST),
    ],
)
def test_the_last_line_of_a_log_is_its_jobs_last_word(tmp_path, files, words):
    made = Submission.begin(tmp_path, ["a"])
    for name, content in files.items():
        (made.folder / name).write_bytes(content)
    assert made.last_words("17") == words
