"""What anarch promises of all workers. A machine is a process with another working directory, reached by ``env`` in the place of ssh."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping

from anarch_core.testing import WorkersConformance
from anarch_core.workers import AbstractWorkers


class TestConformance(WorkersConformance):
    name = "ssh"
    options = {"hosts": ("node1", "node2"), "by": "env --chdir=/ HOST={host}", "python": sys.executable}

    def kill(self, workers: AbstractWorkers, processes: Mapping[int, str]) -> None:
        for process in processes:
            os.kill(process, signal.SIGKILL)
