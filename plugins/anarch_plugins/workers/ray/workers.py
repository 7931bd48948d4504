"""Workers in Ray. This process alone writes the run directory; a broker beside it talks with Ray."""

from __future__ import annotations

import importlib.util
import pickle
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from anarch_core.errors import AnarchError, ConfigError, MissingDependencyError, RunError
from anarch_core.workers import AbstractWorkers, Crew, Desk, Event, Outcome, Piece, brought, versions
from anarch_plugins.workers.ray.line import Line
from anarch_plugins.workers.ray.options import HOST_PORT, RayOptions

if TYPE_CHECKING:
    from anarch_core.workers import Job, RunContext

KNOCK = 5.0
"""Seconds for somebody to answer at the address."""

OWN = 600 * 10**6
"""Bytes of memory that a worker takes for the interpreter and PyTorch."""


class RayWorkers(AbstractWorkers):
    """Trains segments in a Ray cluster.

    Raises:
        MissingDependencyError: Ray is not installed.
        ConfigError: nobody is at the address.
    """

    def __init__(self, options: RayOptions | None = None) -> None:
        super().__init__(options)
        self._options = options or RayOptions()
        if importlib.util.find_spec("ray") is None:
            msg = "workers 'ray' need the package ray, which is not installed: pip install 'anarch[ray]'"
            raise MissingDependencyError(msg)
        _knock(self._options.address)
        self._line: Line | None = None
        self._capacity = 0
        self._under_way: dict[str, _UnderWay] = {}

    def open(self, crew: Crew) -> None:
        """Start or join Ray, and hand over what every worker gets."""
        config, context = crew.context.config, crew.context
        gpus, threads = _gpus(config.device, self._options.gpus), config.threads or 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run told when it loaded the same
            data = pickle.dumps(context.source(), protocol=5)
        settings = {
            "cpus": None if config.jobs is None else config.jobs * threads,
            "alike": versions(config, context.registry),
            "threads": threads,
            "gpus": gpus,
            "memory": OWN + len(data),
            "peak": crew.need.peak_bytes,
            "jobs": config.jobs,
            "segments": crew.segments,
        }
        self._crew, self._line = crew, Line(self._options.address, settings, crew.stop)
        self._line.send(pickle.dumps(config))
        self._line.send(data)

    @property
    def capacity(self) -> int:
        """As many as have answered that they are ready."""
        return self._capacity

    def submit(self, job: Job) -> None:
        """Hand over a job; its files follow when somebody has taken it."""
        self._under_way[job.segment.id] = _UnderWay(job, self._crew.context)
        self._tell("job", job.segment.id, pickle.dumps(job))

    def wait(self) -> Sequence[Outcome]:
        """Take what comes; at most a second."""
        line, until = self._opened, time.monotonic() + 1.0
        while line.connection.poll(max(0.0, until - time.monotonic())):
            try:
                what, segment, content = line.connection.recv()
            except (EOFError, OSError):
                raise line.broken() from None
            if segment is None:
                self._heard(what, content)
                return ()
            if segment in self._under_way:  # else it was given up
                try:
                    outcome = self._heard_of(segment, what, content)
                except (AnarchError, OSError) as error:  # files cannot be read or written here
                    self._tell("drop", segment, None)
                    outcome = Outcome.failed(segment, error)
                if outcome is not None:
                    self._under_way.pop(segment).desk.drop()
                    return (outcome,)
        return ()

    def stop(self) -> None:
        """Have all states saved and sent home."""
        self._tell("stop", None, None)

    def close(self, *, at_once: bool = False) -> None:
        """End the workers, and a Ray of our own."""
        while self._under_way:
            self._under_way.popitem()[1].desk.drop()
        if self._line is not None:
            self._line.close()
            self._line = None

    @property
    def _opened(self) -> Line:
        if self._line is None:
            msg = "the workers are not open"
            raise RuntimeError(msg)
        return self._line

    def _tell(self, what: str, segment: str | None, content: Any) -> None:
        self._opened.send((what, segment, content))

    def _heard(self, what: str, content: Any) -> None:
        """Something about the workers: their number, a line for the user, or that there will be none."""
        if what == "capacity":
            self._capacity = content
        elif what == "say":
            self._crew.say(content)
        else:
            raise RunError(content)

    def _heard_of(self, segment: str, what: str, content: Any) -> Outcome | None:
        """Something of a segment; its outcome if it has one."""
        under_way = self._under_way[segment]
        if what == "want":
            piece = next(under_way.files, None)
            self._tell("piece", segment, None if piece is None else pickle.dumps(piece, protocol=5))
        elif what == "placed":
            self._crew.on_event(Event("placed", segment, content))
        elif what == "told":
            told = pickle.loads(content)
            if isinstance(told, Piece):
                under_way.desk.take(told)
            else:
                self._crew.on_event(told)
        elif what == "outcome":
            outcome: Outcome = pickle.loads(content)
            return outcome
        elif what == "lost":
            return Outcome(segment=segment, error=content, lost=True)
        elif what == "error":
            return Outcome(segment=segment, error=content)
        else:  # stopped before it began
            return Outcome(segment=segment)
        return None


class _UnderWay:
    """A job that somebody has, or will have: its files on the way there, and the desk for what comes from there."""

    def __init__(self, job: Job, context: RunContext) -> None:
        self.files: Iterator[Piece] = brought(context.store, job)
        self.desk = Desk(context.store, [job.segment.id])


def _knock(address: str) -> None:
    """Refuse an address where nobody answers."""
    if named := HOST_PORT.fullmatch(address):
        try:
            socket.create_connection((named["host"].strip("[]"), int(named["port"])), timeout=KNOCK).close()
        except (OSError, OverflowError) as error:
            why = "no answer" if isinstance(error, TimeoutError) else getattr(error, "strerror", None) or str(error)
            msg = f"nobody is at {address} ({why}), where a Ray cluster should be; its head is started by: ray start --head"
            raise ConfigError(msg) from None


def _gpus(device: str, asked: float | None) -> float | None:
    """GPUs of a worker; None for one where there are some.

    Raises:
        ConfigError: it contradicts the device.
    """
    if device not in ("auto", "cpu", "cuda"):
        msg = f"device {device!r}: in Ray a worker has the card that Ray gives it; say --device cuda, or auto"
        raise ConfigError(msg)
    if (device == "cpu" and asked) or (device == "cuda" and asked == 0):
        msg = f"--device {device} and workers with {asked:g} GPUs (--ray-gpus) contradict each other; leave out one of the two"
        raise ConfigError(msg)
    return {"cpu": 0.0, "cuda": asked or 1.0}.get(device, asked)
