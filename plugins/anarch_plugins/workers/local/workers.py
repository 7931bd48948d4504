"""Workers on this machine: this process alone, or several processes of their own, each with a card where there are cards.

A worker process (see :mod:`anarch_plugins.workers.local.worker`) is an interpreter of its own, never a fork: PyTorch's threads do not
survive one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.workers import SIGNALS, VISIBLE, AbstractWorkers, Crew, Event, InProcess, Outcome, Place
from anarch_plugins.workers.local.worker import STOP

if TYPE_CHECKING:
    from anarch_core.workers import Job


class LocalWorkers(AbstractWorkers):
    """Trains segments in this process if there is one place to train at, otherwise in a process for each."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._workers: AbstractWorkers = InProcess()

    def open(self, crew: Crew) -> None:
        """See which of the two it is."""
        if len(crew.places) > 1:
            self._workers = Processes()
        self._workers.open(crew)

    @property
    def capacity(self) -> int:
        """As many as there are places."""
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
        self._idle: dict[int, _Process] = {}
        self._busy: dict[Connection, tuple[_Process, str]] = {}

    def open(self, crew: Crew) -> None:
        """Processes are started when there is something to do for them."""
        self._crew = crew

    @property
    def capacity(self) -> int:
        """As many as there are places."""
        return len(self._crew.places)

    def submit(self, job: Job) -> None:
        """Send the job to the process of the best free place, starting one if there is none that is alive."""
        number = best_place(self._crew.places, busy={process.number for process, _ in self._busy.values()}, started=self._idle)
        process = self._idle.pop(number, None)
        if process is None or not process.send(job):
            if process is not None:
                process.end()
            process = _Process(self._crew, number)
            process.send(job)  # where that fails, the process has ended, and wait() says how
        self._busy[process.connection] = process, job.segment.id
        if process.place.visible is not None:
            self._crew.on_event(Event("placed", job.segment.id, process.place.name))

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
                if message.error is not None and process.place.visible is not None:
                    outcomes.append(attrs.evolve(message, error=f"on {process.place.name}: {message.error}"))
                    process.end()  # an error of CUDA leaves a process that cannot use its card any more, and shows up as any exception
                else:
                    outcomes.append(message)
                    self._idle[process.number] = process
            else:
                self._crew.on_event(message)
        return outcomes

    def stop(self) -> None:
        """Ask all jobs to save their state and end."""
        for process, _ in self._busy.values():
            process.send(STOP)  # one that has ended needs no word

    def close(self, *, at_once: bool = False) -> None:
        """End all processes."""
        for process in [*self._idle.values(), *(process for process, _ in self._busy.values())]:
            process.end(at_once=at_once)
        self._idle.clear()
        self._busy.clear()


def best_place(places: Sequence[Place], *, busy: Collection[int], started: Collection[int]) -> int:
    """The number of the free place to train at next: where the fewest are at work, and of these where a process has its data already.

    Args:
        places: all of them.
        busy: numbers of those at which a segment is trained; not all.
        started: numbers of those at which a process waits.
    """
    at_work = Counter(places[number].name for number in busy)
    free = [number for number in range(len(places)) if number not in busy]
    return min(free, key=lambda number: (at_work[places[number].name], number not in started, number))


class _Process:
    """A worker process, at the place of a number, and the line to it."""

    def __init__(self, crew: Crew, number: int) -> None:
        self.number, self.place = number, crew.places[number]
        self.connection, theirs = Pipe()
        out = str(crew.context.store.path)
        config = attrs.evolve(crew.context.config, device=self.place.device, data_on=self.place.data_on)
        # -P: the working directory must not decide which anarch_core is imported.
        command = [sys.executable, "-P", "-m", "anarch_plugins.workers.local.worker", str(theirs.fileno()), out]
        threads = str(config.threads or 1)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if self.place.visible is not None:
            environment[VISIBLE] = self.place.visible
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
