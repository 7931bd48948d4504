"""Worker processes at a place: one, or several that train a segment together, and the lines to them.

A worker process (see :mod:`anarch_plugins.workers.local.worker`) is an interpreter of its own, never a fork: PyTorch's threads do not
survive one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import attrs

from anarch_core.workers import SIGNALS, VISIBLE, Crew, Event, Outcome, Place
from anarch_plugins.workers.local.worker import STOP, Member

TO_FOLLOW = 30.0
"""Seconds that the others may take to end a job once the first has."""

TO_FAIL_TOO = 5.0
"""Seconds in which the first may still say why a job failed, once it has failed in another process."""


class Process:
    """A worker process, and the line to it.

    Args:
        crew: the run that it works for.
        place: where.
        member: which it is of those that train together.
    """

    def __init__(self, crew: Crew, place: Place, member: Member) -> None:
        self.member = member
        self.connection, theirs = Pipe()
        out = str(crew.context.store.path)
        config = attrs.evolve(crew.context.config, device=place.device, data_on=place.data_on)
        # -P: the working directory must not decide which anarch_core is imported.
        command = [sys.executable, "-P", "-m", "anarch_plugins.workers.local.worker", str(theirs.fileno()), out]
        threads = str(config.threads or 1)
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if place.visible is not None:
            environment[VISIBLE] = place.visible
        # Signals reach the whole group. A worker knows how to take them once it runs, and inherits them blocked until then.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()
        self.send(config)
        self.send(member)

    def send(self, message: object) -> bool:
        """Whether the process was there to be told."""
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def received(self, segment: str) -> Event | Outcome:
        """What it says, which is there or is waited for; that it is lost, where it is gone."""
        try:
            message: Event | Outcome = self.connection.recv()
        except (EOFError, OSError):
            return Outcome(segment=segment, error=self.epitaph(), lost=True)
        return message

    def is_gone(self, patience: float) -> bool:
        """Whether it has ended, or does so within some seconds."""
        try:
            self._process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            return False
        return True

    def epitaph(self) -> str:
        """How it ended."""
        which = "its process" if self.member.size == 1 else f"process {self.member.rank + 1} of {self.member.size}"
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return f"{which} closed the line to this one"
        if code == -signal.SIGKILL:
            return f"{which} was killed, most likely because memory ran out (use fewer --jobs)"
        if code < 0:
            return f"{which} died of {signal.Signals(-code).name}"
        return f"{which} ended with exit code {code}"

    def end(self, *, at_once: bool = False) -> None:
        """Close the line, after which it ends."""
        self.connection.close()
        if at_once:
            self._process.kill()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Team:
    """The processes at a place, which train a segment together; the first tells what happens.

    Args:
        crew: the run that they work for.
        number: of the place.

    Attributes:
        broken: whether they cannot train another segment: one is gone, or they are at different places in what they do.
    """

    def __init__(self, crew: Crew, number: int) -> None:
        self.number, self.place, self.broken = number, crew.places[number], False
        places = self.place.processes
        self._folder = tempfile.TemporaryDirectory(prefix="anarch-")
        meeting = str(Path(self._folder.name) / "meeting")
        self._processes = [Process(crew, place, Member(rank=rank, size=len(places), meeting=meeting)) for rank, place in enumerate(places)]
        self._through: set[int] = set()

    @property
    def lines(self) -> list[Connection]:
        """On which something may come; the first is that of the process that tells."""
        return [process.connection for process in self._processes if process.member.rank not in self._through]

    def submit(self, job: object) -> bool:
        """Whether all were there to be given a job."""
        self._through = set()
        told = [process.send(job) for process in self._processes]
        return all(told)

    def stop(self) -> None:
        """Ask them to save their state and end their job; the first tells the others."""
        self._processes[0].send(STOP)  # one that has ended needs no word

    def heard(self, line: Connection, segment: str) -> Event | Outcome | None:
        """What came: an event, or how the job ended; None where it has ended in another process than the first.

        Args:
            line: one of :attr:`lines`, on which something is.
            segment: identity of the job's.
        """
        first = self._processes[0]
        process = next(each for each in self._processes if each.connection is line)
        message = process.received(segment)
        if not isinstance(message, Outcome):
            return message
        if message.lost or message.result is None:
            self.broken = len(self._processes) > 1 or message.lost
            return self._explained(process, message)
        self._through.add(process.member.rank)
        if process is not first:
            return None
        for other in self._processes[1:]:
            if other.member.rank not in self._through:
                ended = other.received(segment) if other.connection.poll(TO_FOLLOW) else None
                self.broken = self.broken or not isinstance(ended, Outcome) or ended.result is None
        return message

    def _explained(self, process: Process, outcome: Outcome) -> Outcome:
        """How a job ended that has no result in one of the processes."""
        first = self._processes[0]
        if outcome.lost:  # whoever lost another may be heard before the one that is gone
            gone = next((each for each in self._processes if each.is_gone(TO_FAIL_TOO if each is not process else 0)), process)
            return attrs.evolve(outcome, error=gone.epitaph()) if gone.is_gone(0) else outcome
        while process is not first and first.connection.poll(TO_FAIL_TOO):
            message = first.received(outcome.segment)
            if isinstance(message, Outcome):
                return message
        return outcome

    def end(self, *, at_once: bool = False) -> None:
        """End the processes."""
        for process in self._processes:
            process.end(at_once=at_once)
        self._folder.cleanup()
