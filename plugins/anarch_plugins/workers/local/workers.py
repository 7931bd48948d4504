"""Workers on this machine: this process alone, or several processes of their own.

A worker process (see :mod:`anarch_plugins.workers.local.worker`) is an interpreter of its own, never a fork: PyTorch's threads do not
survive one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING, Any

from anarch_core.workers import SIGNALS, AbstractWorkers, Crew, InProcess, Outcome
from anarch_plugins.workers.local.worker import STOP

if TYPE_CHECKING:
    from anarch_core.workers import Job


class LocalWorkers(AbstractWorkers):
    """Trains segments in this process if there is one job at once, otherwise each in a process of its own."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._workers: AbstractWorkers = InProcess()

    def open(self, crew: Crew) -> None:
        """See which of the two it is."""
        if (crew.context.config.jobs or 1) > 1:
            self._workers = Processes()
        self._workers.open(crew)

    @property
    def capacity(self) -> int:
        """As many as ``--jobs``."""
        return self._workers.capacity

    def submit(self, job: Job) -> None:
        """Hand over a job."""
        self._workers.submit(job)

    def wait(self) -> Sequence[Outcome]:
        """Go on until something happens."""
        return self._workers.wait()

    def stop(self) -> None:
        """Ask all jobs to save their state and end."""
        self._workers.stop()

    def close(self, *, at_once: bool = False) -> None:
        """End all processes."""
        self._workers.close(at_once=at_once)


class Processes(AbstractWorkers):
    """Trains segments in processes of their own."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._idle: list[_Process] = []
        self._busy: dict[Connection, tuple[_Process, str]] = {}

    def open(self, crew: Crew) -> None:
        """Processes are started when there is something to do for them."""
        self._crew = crew

    @property
    def capacity(self) -> int:
        """As many as ``--jobs``."""
        return self._crew.context.config.jobs or 1

    def submit(self, job: Job) -> None:
        """Send the job to an idle process, starting one if none of them is alive."""
        process = None
        while process is None and self._idle:
            process = self._idle.pop()
            if not process.send(job):
                process.end()
                process = None
        if process is None:
            process = _Process(self._crew)
            process.send(job)  # where that fails, the process has ended, and wait() says how
        self._busy[process.connection] = process, job.segment.id

    def wait(self) -> Sequence[Outcome]:
        """Read what the processes say; at most a second."""
        outcomes = []
        for connection in wait(list(self._busy), timeout=1.0):
            process, segment = self._busy[connection]  # type: ignore[index]
            try:
                message = process.connection.recv()
            except (EOFError, OSError):
                del self._busy[process.connection]
                outcomes.append(Outcome(segment=segment, error=process.epitaph(), lost=True))
                process.end()
                continue
            if isinstance(message, Outcome):
                del self._busy[process.connection]
                self._idle.append(process)
                outcomes.append(message)
            else:
                self._crew.on_event(message)
        return outcomes

    def stop(self) -> None:
        """Ask all jobs to save their state and end."""
        for process, _ in self._busy.values():
            process.send(STOP)  # one that has ended needs no word

    def close(self, *, at_once: bool = False) -> None:
        """End all processes."""
        for process in [*self._idle, *(process for process, _ in self._busy.values())]:
            process.end(at_once=at_once)
        self._idle.clear()
        self._busy.clear()


class _Process:
    """A worker process and the line to it."""

    def __init__(self, crew: Crew) -> None:
        self.connection, theirs = Pipe()
        config, out = crew.context.config, str(crew.context.store.path)
        # -P: the working directory must not decide which anarch_core is imported.
        command = [sys.executable, "-P", "-m", "anarch_plugins.workers.local.worker", str(theirs.fileno()), out]
        threads = str(config.threads or 1)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        # Signals reach the whole group. A worker knows how to take them once it runs, and inherits them blocked until then.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self.send(config)

    def send(self, message: object) -> bool:
        """Whether the process was there to be told."""
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def epitaph(self) -> str:
        """How it ended."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "its process closed the line to this one"
        if code == -signal.SIGKILL:
            return "its process was killed, most likely because memory ran out (use fewer --jobs)"
        if code < 0:
            return f"its process died of {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    def end(self, *, at_once: bool = False) -> None:
        self.connection.close()
        if at_once:
            self._process.kill()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
