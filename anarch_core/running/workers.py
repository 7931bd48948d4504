"""Who trains the segments: this process, or several processes of their own.

A worker process (see :mod:`anarch_core.running.worker`) is an interpreter of its own, never a fork: PyTorch's threads do not survive one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING

import attrs

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import AnarchError, PluginError, Stopped, one_line
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.store import RunStore
from anarch_core.running.stopping import SIGNALS, Stop

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
        died: whether its process ended under it, so that it may do better in another one.
    """

    segment: str
    result: SegmentResult | None = None
    error: str | None = None
    trace: str | None = None
    died: bool = False

    @classmethod
    def failed(cls, segment: str, error: BaseException) -> Outcome:
        """It raised something."""
        trace = "".join(traceback.format_exception(error)) if isinstance(error, PluginError) or not isinstance(error, AnarchError) else None
        return cls(segment=segment, error=str(error) if isinstance(error, AnarchError) else one_line(error), trace=trace)


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
    def close(self, *, at_once: bool = False) -> None:
        """End all processes; ``at_once`` those that have a job, too, which lose what they have not saved."""


class InProcess(AbstractWorkers):
    """Trains segments here, one at a time.

    Args:
        context: does it.
        threads: processor threads; the number found is put back at the end.
        on_event: told what happens.
        stop: whether to stop.
    """

    def __init__(self, context: RunContext, threads: int, on_event: Callable[[Event], None], stop: Stop) -> None:
        import torch

        self.capacity = 1
        self._context, self._on_event, self._stop = context, on_event, stop
        self._jobs: list[Job] = []
        self._threads_found = torch.get_num_threads()
        torch.set_num_threads(threads)

    def submit(self, job: Job) -> None:
        """Remember the job for :meth:`wait`."""
        self._jobs.append(job)

    def wait(self) -> Sequence[Outcome]:
        """Train one segment."""
        return [run_job(self._context, self._jobs.pop(), self._on_event, self._stop)]

    def stop(self) -> None:
        """Nothing to do: ``stop`` is asked after every step."""

    def close(self, *, at_once: bool = False) -> None:
        """Put the number of threads back."""
        import torch

        torch.set_num_threads(self._threads_found)


class Processes(AbstractWorkers):
    """Trains segments in processes of their own.

    Args:
        config: the run.
        store: the run directory.
        on_event: told what happens.
    """

    def __init__(self, config: RunConfig, store: RunStore, on_event: Callable[[Event], None]) -> None:
        self.capacity = config.jobs or 1
        self._config, self._store, self._on_event = config, store, on_event
        self._idle: list[_Process] = []
        self._busy: dict[Connection, tuple[_Process, str]] = {}

    def submit(self, job: Job) -> None:
        """Send the job to an idle process, starting one if none of them is alive."""
        process = None
        while process is None and self._idle:
            process = self._idle.pop()
            if not process.send(job):
                process.end()
                process = None
        if process is None:
            process = _Process(self._config, self._store)
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
                outcomes.append(Outcome(segment=segment, error=process.epitaph(), died=True))
                process.end()
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
            process.send(STOP)  # one that has ended needs no word

    def close(self, *, at_once: bool = False) -> None:
        """End all processes."""
        for process in [*self._idle, *(process for process, _ in self._busy.values())]:
            process.end(at_once=at_once)
        self._idle.clear()
        self._busy.clear()


class _Process:
    """A worker process and the line to it."""

    def __init__(self, config: RunConfig, store: RunStore) -> None:
        self.connection, theirs = Pipe()
        # -P: the working directory must not decide which anarch_core is imported.
        command = [sys.executable, "-P", "-m", "anarch_core.running.worker", str(theirs.fileno()), str(store.path)]
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


def run_job(context: RunContext, job: Job, emit: Callable[[Event], None], stop: Stop) -> Outcome:
    """Train a segment; whatever it raises becomes part of the outcome."""
    from anarch_core.running.segment import train_segment

    def told(event: Event) -> None:
        with stop.later():
            emit(event)
        stop.check()

    identity = job.segment.id
    try:
        return Outcome(segment=identity, result=train_segment(context, job, told, stop))
    except Stopped:
        return Outcome(segment=identity)
    except BaseException as error:  # a plugin may raise anything, and the other segments must go on
        return Outcome.failed(identity, error)
