"""Who trains the segments: this process, or several processes of their own.

A worker process (see :mod:`anarch_core.running.worker`) is an interpreter of its own, never a fork: PyTorch's threads do not survive one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import attrs

from anarch_core.errors import AnarchError, PluginError
from anarch_core.experiment.segment_result import SegmentResult

if TYPE_CHECKING:
    from anarch_core.experiment.context import RunContext
    from anarch_core.experiment.events import Event, Job


STOP = "stop"
"""What a worker process is told when it has to save its state and end its job."""


@attrs.frozen(kw_only=True)
class Outcome:
    """How a job ended.

    Attributes:
        segment: identity.
        result: what came out; None if it failed or was stopped.
        error: why it failed.
        trace: where in the program, for what is not the user's mistake.
    """

    segment: str
    result: SegmentResult | None = None
    error: str | None = None
    trace: str | None = None


class AbstractWorkers(ABC):
    """Trains segments.

    Attributes:
        capacity: jobs at once.
    """

    capacity: int

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Hand over a job; at most ``capacity`` may be under way."""

    @abstractmethod
    def wait(self) -> Sequence[Outcome]:
        """Go on until something happens; the jobs that ended meanwhile, possibly none."""

    @abstractmethod
    def stop(self) -> None:
        """Ask all jobs to save their state and end."""

    @abstractmethod
    def close(self) -> None:
        """End all processes."""


class InProcess(AbstractWorkers):
    """Trains segments here, one at a time.

    Args:
        context: does it.
        threads: processor threads; the number found is put back at the end.
        on_event: told what happens.
        stopped: whether to stop, asked after every step.
    """

    def __init__(self, context: RunContext, threads: int, on_event: Callable[[Event], None], stopped: Callable[[], bool]) -> None:
        import torch

        self.capacity = 1
        self._context, self._on_event, self._stopped = context, on_event, stopped
        self._jobs: list[Job] = []
        self._threads_found = torch.get_num_threads()
        torch.set_num_threads(threads)

    def submit(self, job: Job) -> None:
        """Remember the job for :meth:`wait`."""
        self._jobs.append(job)

    def wait(self) -> Sequence[Outcome]:
        """Train one segment."""
        return [run_job(self._context, self._jobs.pop(), self._on_event, self._stopped)]

    def stop(self) -> None:
        """Nothing to do: ``stopped`` is asked after every step."""

    def close(self) -> None:
        """Put the number of threads back."""
        import torch

        torch.set_num_threads(self._threads_found)


class Processes(AbstractWorkers):
    """Trains segments in processes of their own.

    Args:
        capacity: how many.
        threads: processor threads of each.
        out: the run directory.
        model: of the run, which may be a factory that the user named in this call; its word in the run directory does not count.
        on_event: told what happens.
    """

    def __init__(self, capacity: int, threads: int, out: Path, model: str, on_event: Callable[[Event], None]) -> None:
        self.capacity = capacity
        self._threads, self._out, self._model, self._on_event = threads, out, model, on_event
        self._idle: list[_Process] = []
        self._busy: dict[Connection, tuple[_Process, str]] = {}

    def submit(self, job: Job) -> None:
        """Send the job to an idle process, starting one if there is none."""
        process = self._idle.pop() if self._idle else _Process(self._threads, self._out, self._model)
        self._busy[process.connection] = process, job.segment.id
        process.connection.send(job)

    def wait(self) -> Sequence[Outcome]:
        """Read what the processes say; at most a second."""
        outcomes = []
        for connection in wait(list(self._busy), timeout=1.0):
            process, segment = self._busy[connection]  # type: ignore[index]
            try:
                message = process.connection.recv()
            except (EOFError, ConnectionResetError):
                del self._busy[process.connection]
                outcomes.append(Outcome(segment=segment, error=process.epitaph()))
                continue
            if isinstance(message, Outcome):
                del self._busy[process.connection]
                self._idle.append(process)
                outcomes.append(message)
            else:
                self._on_event(message)
        return outcomes

    def stop(self) -> None:
        """Ask all jobs to save their state and end."""
        for process, _ in self._busy.values():
            process.send_stop()

    def close(self) -> None:
        """End all processes."""
        for process in [*self._idle, *(process for process, _ in self._busy.values())]:
            process.end()
        self._idle.clear()
        self._busy.clear()


class _Process:
    """A worker process and the line to it."""

    def __init__(self, threads: int, out: Path, model: str) -> None:
        self.connection, theirs = Pipe()
        # -P: the working directory must not decide which anarch_core is imported.
        command = [sys.executable, "-P", "-m", "anarch_core.running.worker", str(theirs.fileno()), str(out), model]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        # A worker ignores Ctrl-C, which reaches the whole group, but only once it runs: it inherits the blocked signal until then.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def send_stop(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended; wait() will say how
            self.connection.send(STOP)

    def epitaph(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "its process was killed, most likely because memory ran out (use fewer --jobs)"
        if code < 0:
            return f"its process died of {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"

    def end(self) -> None:
        self.connection.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def run_job(context: RunContext, job: Job, emit: Callable[[Event], None], stopped: Callable[[], bool]) -> Outcome:
    """Train a segment; whatever it raises becomes part of the outcome."""
    from anarch_core.running.segment import train_segment

    identity = job.segment.id
    try:
        return Outcome(segment=identity, result=train_segment(context, job, emit, stopped))
    except AnarchError as error:
        trace = traceback.format_exc() if isinstance(error, PluginError) else None
        return Outcome(segment=identity, error=str(error), trace=trace)
    except Exception as error:  # a plugin may raise anything, and the other segments must go on
        return Outcome(segment=identity, error=f"{type(error).__name__}: {error}", trace=traceback.format_exc())


@contextlib.contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call ``stop``; the second one acts as it would have without this."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(number, found[signal.Signals(number)])
        stop()

    for number in found:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)
