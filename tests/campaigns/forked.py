"""The command line in processes that can be abused: forked where everything heavy is imported, each the leader of a group of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from command import Ended

FORKS = multiprocessing.get_context("forkserver")
# As in the suite, which has one such server.
FORKS.set_forkserver_preload(
    ["torch", "torch._dynamo", "torchvision", "scipy.optimize", "matplotlib.backends.backend_svg"]
)  # as in the suite

PROGRAM = """
import os, sys
os.setsid()
for number, file in enumerate(outputs, 1):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
os.chdir(folder)
from anarch_core.report import writer
writer.figures = lambda: []
exec(patch)
from anarch_core.cli import main
main(arguments)
"""
"""What the process does: no figures, which take longer than these runs."""

WORKERS = """
import os, subprocess, time, traceback
from pathlib import Path
from anarch_plugins.workers.local import workers

class Fork:
    def __init__(self, command, pass_fds, stdin, env):
        self.pid, self.code = os.fork(), None
        if self.pid:
            return
        nothing = os.open(os.devnull, os.O_RDWR)
        for handle in map(int, os.listdir("/proc/self/fd")):
            try:
                held = os.readlink(f"/proc/self/fd/{handle}")
            except OSError:
                continue
            if handle not in pass_fds and (held.startswith("socket:") or held.endswith(".lock")):
                os.dup2(nothing, handle)
        try:
            from anarch_plugins.workers.local.worker import main
            main(int(command[-2]), Path(command[-1]))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def wait(self, timeout=None):
        until = time.monotonic() + (timeout or 1e9)
        while self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > until:
                raise subprocess.TimeoutExpired("worker", timeout)
            else:
                time.sleep(0.01)
        return self.code

    def kill(self):
        if self.code is None:
            os.kill(self.pid, 9)

class Forking:
    Popen, DEVNULL, TimeoutExpired = Fork, None, subprocess.TimeoutExpired

workers.subprocess = Forking
"""
"""Has workers forked, too, which begin in no time; for tries that are not about how they begin."""


class Forked:
    """``anarch ARGUMENTS`` under way.

    Args:
        arguments: of the command.
        folder: where it runs.
        patch: Python that is run before it, which may call ``tell(text)``.
    """

    def __init__(self, *arguments: object, folder: Path, patch: str = "") -> None:
        self._outputs = [str(folder / f".{name}-{time.monotonic_ns()}") for name in ("out", "err")]
        self._told, theirs = FORKS.Pipe(duplex=False)
        names = {
            "arguments": [str(argument) for argument in arguments],
            "folder": str(folder),
            "outputs": self._outputs,
            "patch": patch,
            "tell": theirs.send,
        }
        self._process = FORKS.Process(target=exec, args=(PROGRAM, names))
        self._process.start()
        theirs.close()
        self.pid = self._process.pid or 0

    def hear(self) -> str | None:
        """What it tells next; None when it has ended."""
        try:
            told: str = self._told.recv()
        except (EOFError, OSError):
            return None
        return told

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def workers(self) -> Sequence[int]:
        """Its worker processes."""
        try:
            children = psutil.Process(self.pid).children()
        except psutil.NoSuchProcess:
            return []
        return [child.pid for child in children]

    def send(self, number: signal.Signals, target: str) -> None:
        """Send a signal to the ``parent``, one ``worker`` (the parent if there is none), or the whole ``group``."""
        with contextlib.suppress(ProcessLookupError):
            if target == "group":
                os.killpg(self.pid, number)
            else:
                workers = self.workers() if target == "worker" else []
                os.kill(workers[0] if workers else self.pid, number)

    def ended(self, seconds: float = 50) -> Ended:
        """How it ended, all of its group gone.

        Raises:
            AssertionError: some of it goes on.
        """
        self._process.join(seconds)
        assert not self.alive(), f"still there after {seconds:.0f} s"
        until = time.monotonic() + 10
        while time.monotonic() < until and self._group():
            time.sleep(0.02)
        assert not self._group(), "a worker outlived the run"
        out, err = (Path(file).read_text(errors="replace") for file in self._outputs)
        return Ended(self._process.exitcode or 0, out, err)

    def close(self) -> None:
        """End all of it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join()
        self._told.close()

    def _group(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return True

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
