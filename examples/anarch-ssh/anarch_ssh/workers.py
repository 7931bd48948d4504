"""Workers over ssh: a process on each machine, which is brought what it needs and sends home what it makes."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

from anarch_core.errors import AnarchError
from anarch_core.workers import AbstractWorkers, Crew, Desk, Event, Job, Outcome, Piece, brought, differences, versions
from anarch_ssh.host import READY, STOP
from anarch_ssh.options import SshOptions, processes

PAUSE, LONGEST_PAUSE = 2.0, 120.0
"""Seconds after which a machine is tried again that was lost; twice as many each time that it does not come back."""

LINE = 8
"""Messages that wait to be heard; machines wait when there are more."""


class SshWorkers(AbstractWorkers):
    """Trains on machines that ssh reaches. Only this process writes into the run directory."""

    options: SshOptions

    def __init__(self, options: SshOptions) -> None:
        super().__init__(options)
        self._places = [_Place(name) for name in processes(options.hosts)]
        self._heard: queue.Queue[tuple[_Place, _Process, Any]] = queue.Queue(LINE)

    def open(self, crew: Crew) -> None:
        """Start all processes; each counts once it has what it needs."""
        self._crew, self._versions = crew, versions(crew.context.config)
        self._start()

    @property
    def capacity(self) -> int:
        """The machines that are ready, or at work."""
        return sum(place.ready for place in self._places)

    def submit(self, job: Job) -> None:
        """Bring a job to a machine that has none."""
        place = next(place for place in self._places if place.ready and place.job is None)
        place.job, place.desk = job, Desk(self._crew.context.store, [job.segment.id])
        place.post([job], brought(self._crew.context.store, job), [None])
        self._crew.on_event(Event("placed", job.segment.id, place.name))

    def wait(self) -> Sequence[Outcome]:
        """Hear what there is to be heard; call again on machines that were lost."""
        self._start()
        outcomes: list[Outcome] = []
        try:
            heard = self._heard.get(timeout=1.0)
            while True:
                place, process, message = heard
                if place.process is process:  # else it was given up
                    outcome = self._take(place, message)
                    outcomes += [] if outcome is None else [outcome]
                heard = self._heard.get_nowait()
        except queue.Empty:
            return outcomes

    def stop(self) -> None:
        """A word to each that has a job."""
        for place in self._places:
            if place.job is not None:
                place.post([STOP])

    def close(self, *, at_once: bool = False) -> None:
        """End all processes."""
        for place in self._places:
            place.again_at = float("inf")
            place.leave()

    def _start(self) -> None:
        """Start processes whose time has come."""
        for place in self._places:
            if place.process is None and time.monotonic() >= place.again_at:
                place.process = _Process(place, self.options.command(place.name), self._heard)

    def _take(self, place: _Place, message: Any) -> Outcome | None:
        """What a machine told; the outcome of its job, if this is it."""
        outcome = None
        if message is None:
            outcome = self._lost(place)
        elif isinstance(message, dict):
            self._greet(place, message)
        elif message == READY:
            place.ready, place.pause = True, PAUSE
        elif isinstance(message, Exception):  # its files cannot be read here
            outcome = self._failed(place, message)
        elif isinstance(message, Outcome):
            outcome, place.job = message, None
        elif place.job is not None:
            try:
                if isinstance(message, Piece):
                    place.desk.take(message)
                else:
                    self._crew.on_event(message)
            except (AnarchError, OSError) as error:
                if not isinstance(message, Piece):
                    raise
                outcome = self._failed(place, error)
        return outcome

    def _greet(self, place: _Place, theirs: dict[str, str]) -> None:
        """Give a machine what is run, or leave it out."""
        why = differences(self._versions, theirs)
        if why is None:
            place.post([(self._crew.context.config, self._crew.context.data)])
        else:
            self._crew.say(f"{place.name} is left out: it {why}")
            place.again_at = float("inf")
            place.leave()

    def _lost(self, place: _Place) -> Outcome | None:
        """A process has ended."""
        job, was_ready = place.job, place.ready
        code = place.leave()
        place.again_at = time.monotonic() + place.pause
        if was_ready or place.pause == PAUSE:
            self._crew.say(f"{place.name}: the line is cut (exit code {code}); it is called again from time to time")
        place.pause = min(2 * place.pause, LONGEST_PAUSE)
        return None if job is None else Outcome(segment=job.segment.id, error=f"the line to {place.name} was cut", lost=True)

    def _failed(self, place: _Place, error: BaseException) -> Outcome:
        """The files of a job cannot be read or written here; its process is in the middle of something, and starts anew."""
        assert place.job is not None
        outcome = Outcome.failed(place.job.segment.id, error)
        place.leave()
        return outcome


class _Place:
    """A process on a machine, and the ones after it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: _Process | None = None
        self.ready = False
        self.job: Job | None = None
        self.desk: Desk
        self.again_at, self.pause = 0.0, PAUSE

    def post(self, *messages: Iterable[object]) -> None:
        """Send messages, one after the other, while this process goes on."""
        if self.process is not None:
            for some in messages:
                self.process.outbox.put(some)

    def leave(self) -> int | None:
        """End the process, if there is one; its exit code."""
        process, self.process, job, self.job, self.ready = self.process, None, self.job, None, False
        if job is not None:
            self.desk.drop()
        return None if process is None else process.end()


class _Process:
    """A command, a thread that writes to it, and one that reads from it."""

    def __init__(self, place: _Place, command: Sequence[str], heard: queue.Queue[tuple[_Place, _Process, Any]]) -> None:
        self.outbox: queue.SimpleQueue[Iterable[object] | None] = queue.SimpleQueue()
        self._place, self._heard, self._ended = place, heard, False
        # A session of its own: Ctrl-C is for the run, which then asks its jobs to stop.
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._read, self._write)]
        for thread in self._threads:
            thread.start()

    def end(self) -> int:
        """The end of its input is the end of it, wherever it is."""
        self._ended = True
        self.outbox.put(None)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
        code = self._process.wait()
        for thread in self._threads:
            thread.join()
        return code

    def _tell(self, message: object) -> None:
        while not self._ended:
            with contextlib.suppress(queue.Full):
                self._heard.put((self._place, self, message), timeout=0.2)
                return

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as messages, contextlib.suppress(Exception):  # the end, or half a message
            while not self._ended:
                self._tell(pickle.load(messages))
        self._tell(None)

    def _write(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError), self._process.stdin as line:  # whoever reads tells that it is gone
            while (messages := self.outbox.get()) is not None:
                try:
                    parcels = map(_parcel, messages)
                    for parcel in parcels:
                        line.write(parcel)
                        line.flush()
                except AnarchError as error:
                    self._tell(error)


def _parcel(message: object) -> bytes:
    return pickle.dumps(message, protocol=5)
