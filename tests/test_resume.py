"""A run that is killed at random moments ends in the same bytes as one that was left alone."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from anarch_core.results import Results
from anarch_core.runner import run

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from runs import small, write_signals

PROGRAM = """
import sys
import anarch_core.execution
from anarch_core.progress import Silent
from anarch_core.runner import run
from test_resume import configuration

class Telling(Silent):
    def trained(self, segment, iteration, row):
        print(iteration, flush=True)

if __name__ == "__main__":
    anarch_core.execution.SAVE_EVERY = 0.0  # as often as it may, so that kills meet it
    run(configuration(sys.argv[1], jobs=int(sys.argv[3])), out=sys.argv[2], progress=Telling())
"""


def configuration(signals: str | Path, jobs: int):
    settings = {"epochs": 12, "branch_epochs": 8, "switch": "at:0,3,27it", "optimizer_state": "carry"}
    return small(Path(signals), jobs=jobs, **settings, options={"sgd": {"momentum": 0.9}})


def files(path: Path) -> dict[str, bytes]:
    """Every file that holds weights or a history."""
    found = [*path.glob("segments/**/*.safetensors"), *path.glob("segments/*/history.jsonl")]
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_again_and_again(tmp_path, jobs):
    signals = write_signals(tmp_path / "signals.safetensors")
    expected = run(configuration(signals, 1), out=tmp_path / "left-alone", progress="silent")
    draw = random.Random(jobs)
    for _ in range(4):
        command = [sys.executable, "-c", PROGRAM, signals, tmp_path / "killed", str(jobs)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": str(HERE), "PATH": ""}) as process:
            for _ in range(draw.randrange(1, 40)):
                process.stdout.readline()
            process.kill()
    results = run(configuration(signals, jobs), out=tmp_path / "killed", progress="silent")
    assert results.status == "finished"
    assert files(tmp_path / "killed") == files(tmp_path / "left-alone")
    for found, wanted in zip(Results.read(tmp_path / "killed").segments, expected.segments, strict=True):
        assert {**found, "seconds": 0} == {**wanted, "seconds": 0}
