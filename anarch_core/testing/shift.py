"""A small run for workers to train, and what is seen of them while they do."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from safetensors.torch import save_file

from anarch_core.cards import cards, in_turn
from anarch_core.config.resolution import resolve
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Event, Job
from anarch_core.experiment.placement import trained_elsewhere
from anarch_core.experiment.segments import Segment, snapshots
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import tree
from anarch_core.planning.need import Need
from anarch_core.plugin.registry import Registry
from anarch_core.running.preparation import prepare
from anarch_core.schedule import Clock
from anarch_core.segment.stopping import Stop
from anarch_core.workers.base import AbstractWorkers, Crew, Outcome

NEED = Need(peak_bytes=2**20, work="training", model_bytes=2**12)

MARK = "ANARCH_CONFORMANCE"
"""Variable of the environment by which processes are found that workers start, whoever their parents are by then."""

AT_ONCE = 20.0
"""Seconds that a single call may take, and that processes may take to end."""


@attrs.frozen(kw_only=True)
class Bench:
    """A run directory before anything is trained.

    Attributes:
        context: what its segments share.
        segments: by what they are called below: ``"trunk"``, ``"branch"``, ``"continued"`` and, where asked for, later ones.
    """

    context: RunContext
    segments: Mapping[str, Segment]

    @classmethod
    def at(cls, folder: Path, registry: Registry, settings: Mapping[str, Any]) -> Bench:
        """A run on forty signals of three kinds.

        Args:
            folder: not there yet, or with the bench that an earlier call made of the same settings; the data are beside it.
            registry: where components are looked up.
            settings: those that the workers decide, and how long it trains.
        """
        data = folder.parent / "signals.safetensors"
        if not data.exists():
            generator = torch.Generator().manual_seed(0)
            y = torch.arange(40) % 3
            x = torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7)[:, None, :] + 0.5 * torch.randn(40, 1, 16, generator=generator)
            data.parent.mkdir(parents=True, exist_ok=True)
            save_file({"x": x, "y": y, "x_test": x.clone(), "y_test": y.clone()}, data)
        own = {"data": f"tensors:{data}", "batch_size": 10, "threads": 1, "device": "cpu", "out": folder / "run"}
        config = resolve({**own, **settings}, registry=registry)
        context = RunContext.open(config, RunStore(folder / "run"), registry)
        prepare(context, config if context.store.config_file.exists() else None)
        clock = Clock(config.epochs, context.iterations_per_epoch)
        segments = tree(config, clock, {0: set(context.moments(clock))}, registry)
        named = {}
        for segment in segments:
            named[segment.kind if segment.kind not in named else f"later {segment.kind}"] = segment
        return cls(context=context, segments=named)

    def job(self, name: str) -> Job:
        """A segment to be trained."""
        segment = self.segments[name]
        return Job(segment=segment, keep=frozenset(snapshots(self.segments.values()).get(segment.id, ())))

    def folder(self, name: str) -> Path:
        """Where a segment is kept."""
        return self.context.store.segment(self.segments[name].id).path

    def damage(self, name: str) -> None:
        """Spoil the snapshot that a segment starts from, so that training it raises."""
        path = self.context.store.snapshot_left(self.segments[name])
        assert path is not None
        path.write_bytes(path.read_bytes()[:100])


@attrs.frozen(kw_only=True)
class Heard:
    """An event as it was told.

    Attributes:
        event: what.
        fault: what was wrong at that moment, in words; None for nothing.
    """

    event: Event
    fault: str | None


class Shift:
    """Workers under way.

    Args:
        workers: just built.
        bench: what they train.
        patience: seconds to wait for any one thing.

    Attributes:
        heard: all events.
        outcomes: by segment, in words.
        capacities: every one that was given, with the number of jobs under way.
        said: lines for the user.
    """

    def __init__(self, workers: AbstractWorkers, bench: Bench, patience: float) -> None:
        self.workers, self.bench, self.patience = workers, bench, patience
        self.heard: list[Heard] = []
        self.outcomes: list[Outcome] = []
        self.capacities: list[tuple[Any, int]] = []
        self.said: list[str] = []
        self.adopted: list[Any] = []
        self.under_way: dict[str, str] = {}
        self._thread = threading.current_thread()

    def open(self) -> None:
        """Start them as a run does."""
        context, config = self.bench.context, self.bench.context.config
        crew = Crew(
            context=context,
            on_event=self._hear,
            say=self.said.append,
            stop=Stop(),
            need=NEED,
            segments=3,
            places=() if trained_elsewhere(config, context.registry) else in_turn(cards(config.device), config.jobs or 1),
        )
        with within(self.patience, "open()"):
            self.workers.open(crew)
        with within(AT_ONCE, "adopt()"):
            known = [segment.id for segment in self.bench.segments.values()]
            self.adopted = [list(self.workers.adopt([])), list(self.workers.adopt(known))]

    def capacity(self) -> int:
        """Jobs at once, noted."""
        with within(AT_ONCE, "capacity"):
            found = self.workers.capacity
        self.capacities.append((found, len(self.under_way)))
        return found if isinstance(found, int) else 0

    def wait(self) -> Sequence[Outcome]:
        """What ended meanwhile."""
        with within(self.patience, "wait()"):
            outcomes = list(self.workers.wait())
        for outcome in outcomes:
            assert isinstance(outcome, Outcome), f"wait() gives a {type(outcome).__name__}, expected anarch_core.workers.Outcome"
            assert outcome.segment in self.under_way, f"wait() gives an outcome of {outcome.segment!r}, which is not under way"
            del self.under_way[outcome.segment]
        self.outcomes += outcomes
        return outcomes

    def until(self, seen: Callable[[], object], what: str) -> None:
        """Wait for something."""
        end = time.monotonic() + self.patience
        while not seen():
            assert time.monotonic() < end, f"after {self.patience:.0f} seconds {what} (`patience` of the test allows more)"
            self.wait()

    def submit(self, name: str) -> None:
        """Hand over a segment as soon as there is room."""
        self.until(lambda: self.capacity() > len(self.under_way), f"there was no room for a job: capacity is {self.capacity()}")
        job = self.bench.job(name)
        self.under_way[job.segment.id] = name
        with within(AT_ONCE, "submit()"):
            self.workers.submit(job)
        self.capacity()

    def train(self, *names: str) -> list[Outcome]:
        """Have segments trained, side by side as far as there is room, to their ends."""
        count = len(self.outcomes)
        for name in names:
            self.submit(name)
        self.until(lambda: not self.under_way, f"there was no outcome of {', '.join(self.under_way.values())}")
        return self.outcomes[count:]

    def told(self, name: str, kind: str) -> list[Event]:
        """Events of a segment."""
        identity = self.bench.segments[name].id
        return [heard.event for heard in self.heard if (heard.event.segment, heard.event.kind) == (identity, kind)]

    def close(self, *, at_once: bool = False) -> None:
        """End them."""
        with within(self.patience, f"close(at_once={at_once})"):
            self.workers.close(at_once=at_once)

    def _hear(self, event: Event) -> None:
        fault, files = None, self.bench.context.store.segment(event.segment)
        if threading.current_thread() is not self._thread:
            fault = f"was told on the thread {threading.current_thread().name!r}; call on_event from wait() or submit() alone"
        elif event.segment not in self.under_way:
            fault = "was told when its segment was not under way: after its outcome, or before it was submitted"
        elif event.kind == "snapshot" and not files.snapshot(event.value).exists():
            fault = "was told before its file was in the run directory, where children look for it"
        elif event.kind == "saved" and not (files.resume_file.exists() or files.result_file.exists()):
            fault = "was told before the state was in the run directory"
        self.heard.append(Heard(event=event, fault=fault))


_AWAITED: list[str] = []


@contextlib.contextmanager
def alarmed() -> Iterator[None]:
    """Inside, :func:`within` can break off a call; the handler is set once, not while something is trained that looks at it."""

    def late(number: int, frame: object) -> None:
        msg = f"{_AWAITED[-1]} did not return in time; `patience` of the test allows more"
        raise AssertionError(msg)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    found = signal.signal(signal.SIGALRM, late)
    try:
        yield
    finally:
        signal.signal(signal.SIGALRM, found)


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Break off a call that does not come back.

    Raises:
        AssertionError: it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _AWAITED.append(f"within {seconds:.0f} seconds {what}")
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        _AWAITED.pop()


@contextlib.contextmanager
def as_a_worker() -> Iterator[None]:
    """Inside, this process has one processor thread, as each worker has: the number decides the rounding."""
    found = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(found)


class Marked:
    """Processes that are started inside, by whomever: they inherit a variable of the environment."""

    def __init__(self) -> None:
        self._value = secrets.token_hex(8)
        self._threads = set(threading.enumerate())

    def __enter__(self) -> Marked:
        os.environ[MARK] = self._value
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(MARK, None)

    def processes(self) -> dict[int, str]:
        """Their numbers, with the commands that they run."""
        if not Path("/proc/self/environ").exists():
            pytest.skip("processes are counted in /proc, which this system does not have")
        mark, found = f"{MARK}={self._value}".encode(), {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended, or is another user's
                if int(folder.name) != os.getpid() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def left(self) -> list[str]:
        """What has not ended after some seconds: commands, and threads that would keep this process from ending."""
        end = time.monotonic() + AT_ONCE
        while True:
            threads = [thread.name for thread in threading.enumerate() if thread not in self._threads and not thread.daemon]
            found = [*(f"process {command!r:.100}" for command in self.processes().values()), *(f"thread {name!r}" for name in threads)]
            if not found or time.monotonic() > end:
                return found
            time.sleep(0.1)
