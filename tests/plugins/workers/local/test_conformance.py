from __future__ import annotations

import os
import signal

import pytest

from anarch_core.testing import WorkersConformance


@pytest.mark.slow
class TestConformance(WorkersConformance):
    name = "local"

    def kill(self, workers, processes):
        for process in processes:
            os.kill(process, signal.SIGKILL)
