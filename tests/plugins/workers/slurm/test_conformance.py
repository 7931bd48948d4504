from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

from anarch_core.testing import WorkersConformance
from anarch_plugins.workers.slurm import attempt, workers


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory):
    """A Slurm that is one machine, and answers at once: the folder of its jobs and its commands."""
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "bin").mkdir()
    for command in ("sbatch", "srun", "squeue", "scancel"):
        script = folder / "bin" / command
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("one_machine.py")} {command} "$@"\n')
        script.chmod(0o700)
    return folder


@pytest.mark.slow
class TestConformance(WorkersConformance):
    name = "slurm"

    @pytest.fixture(autouse=True)
    def _slurm(self, one_machine, monkeypatch):
        pytest.importorskip("submitit")
        if shutil.which("sbatch") is not None:  # a real one, as in what tests/campaigns/slurm_cluster.py starts
            return
        monkeypatch.setenv("ONE_MACHINE", str(one_machine))
        monkeypatch.setenv("PATH", f"{one_machine / 'bin'}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(workers, "ASKED_EVERY", 0.5)
        monkeypatch.setattr(attempt, "LATE", 1.0)

    def kill(self, workers, processes):
        for process, command in processes.items():
            if "submitit.core._submit" in command:
                os.kill(process, signal.SIGKILL)
