from __future__ import annotations

import os
import signal

import pytest

from anarch_core.testing import WorkersConformance


@pytest.mark.slow
class TestConformance(WorkersConformance):
    name = "ray"

    def kill(self, workers, processes):
        [worker, *_] = [process for process, command in processes.items() if "Worker.run" in command]
        os.kill(worker, signal.SIGKILL)
