"""Wrong workers are found, and what to mend is said.

Each test breaks correct workers in one place and runs the one check that has to notice.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from anarch_core.testing import WorkersConformance
from anarch_core.workers import AbstractWorkers, Event, Outcome, Stop, run_job

Kit = Callable[..., Any]

SLEEPING: list[int] = []


def fall_asleep() -> None:
    """Start a process that outlives the check that should find it, however busy the machine is; here it runs its program."""
    SLEEPING.append(os.posix_spawnp("sleep", ["sleep", "600"], os.environ))


def fork() -> None:
    """Start a process that does not come to run a program of its own."""
    process = os.fork()
    if not process:
        signal.pause()
        os._exit(1)
    SLEEPING.append(process)


@pytest.fixture(autouse=True)
def waking() -> Iterator[None]:
    yield
    while SLEEPING:
        process = SLEEPING.pop()
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


class Honest(AbstractWorkers):
    """Trains here, on a thread; ``away`` takes the worker away."""

    away = None

    def open(self, crew):
        self.crew, self.heard, self.halt, self.thread = crew, queue.SimpleQueue(), Stop(), None

    @property
    def capacity(self):
        return 1

    def submit(self, job):
        self.away = None
        self.thread = threading.Thread(target=self.train, args=(job,))
        self.thread.start()

    def train(self, job):
        self.heard.put(self.trained(job))

    def trained(self, job):
        def tell(event):
            if self.away is not None:
                raise SystemExit
            self.heard.put(event)

        outcome = run_job(self.crew.context, job, tell, self.halt)
        return outcome if self.away is None else Outcome(segment=job.segment.id, error=self.away, lost=True)

    def wait(self):
        try:
            heard = [self.heard.get(timeout=0.2)]
        except queue.Empty:
            return []
        while not self.heard.empty():
            heard.append(self.heard.get())
        for event in heard:
            if isinstance(event, Event):
                self.tell(event)
        return [outcome for outcome in heard if isinstance(outcome, Outcome)]

    def tell(self, event):
        self.crew.on_event(event)

    def stop(self):
        self.halt.asked = signal.SIGTERM

    def close(self, *, at_once=False):
        thread = getattr(self, "thread", None)
        if thread is not None:
            self.away = "it was sent away"
            thread.join()


def with_one(**wrong: Any) -> type[Honest]:
    """Workers that are honest but for some methods."""
    return type("Wrong", (Honest,), wrong)


def ended_as(**wrong: Any) -> type[Honest]:
    """Workers whose outcomes are other ones than came out."""

    def trained(self, job):
        outcome = Honest.trained(self, job)
        return attrs.evolve(outcome, **{name: value(outcome) if callable(value) else value for name, value in wrong.items()})

    return with_one(trained=trained)


def holding_back(kind: str) -> type[Honest]:
    """Workers that tell one kind of event only when the outcome is known."""

    def wait(self):
        outcomes = Honest.wait(self)
        if outcomes:
            for event in self.__dict__.pop("held", []):
                Honest.tell(self, event)
        return outcomes

    def tell(self, event):
        if event.kind == kind:
            self.__dict__.setdefault("held", []).append(event)
        else:
            Honest.tell(self, event)

    return with_one(wait=wait, tell=tell)


def without(kind: str) -> type[Honest]:
    """Workers that pass over one kind of event."""
    return with_one(tell=lambda self, event: event.kind == kind or Honest.tell(self, event))


def leaving_a_process(at_once: bool, start: Callable[[], None] = fall_asleep) -> type[Honest]:
    """Workers that start a process and forget it."""

    def open(self, crew):
        Honest.open(self, crew)
        if at_once or "long" not in str(crew.context.store.path):
            start()

    return with_one(open=open)


def settling_results(self, job):
    outcome = Honest.trained(self, job)
    if outcome.result is not None:
        (self.crew.context.store.segment(job.segment.id).path / "final.safetensors").write_bytes(b"mine")
    return outcome


def in_its_own_thread(self, job):
    def tell(event):
        if self.away is not None:
            raise SystemExit
        self.crew.on_event(event)

    return run_job(self.crew.context, job, tell, self.halt)


def forgetting_state(self, job):
    self.crew.context.store.segment(job.segment.id).resume_file.unlink(missing_ok=True)
    return Honest.trained(self, job)


def drawing(self, crew):
    Honest.open(self, crew)
    torch.rand(1)


def tired(self):
    if self.thread is None:
        time.sleep(1.1)
    return Honest.wait(self)


class Clock:
    """Runs as ever, but for the hours that are added to it."""

    ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("anarch_core.testing.shift.time", clock)
    return clock


def taking_hours(**wrong: Any) -> type[Honest]:
    """Workers for whom waiting takes an hour, from when on ``hours`` says so."""

    def wait(self):
        self.clock.ahead += 3600 * self.hours
        return Honest.wait(self)

    return with_one(**{"wait": wait, "hours": False} | wrong)


def not_stopping(self):
    self.hours = True


def waiting_for_ever(self):
    while True:
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (with_one(adopt=lambda self, known: list(known)), "test_knows_no_jobs_of_others", "nobody trains: the run would wait for ever"),
        (with_one(capacity=True), "test_capacity_is_honest", "capacity is True, expected a whole number from 0 on"),
        (
            with_one(capacity=property(lambda self: int(self.thread is None or not self.thread.is_alive()))),
            "test_capacity_is_honest",
            "capacity is 0 with 1 under way; it is how many jobs there may be at once, not how many more",
        ),
        (with_one(wait=tired), "test_waits_a_moment", "with nothing under way wait.. took"),
        (holding_back("trained"), "test_events_come_in_order", "was told 'snapshot' .* before 'trained'"),
        (without("scored"), "test_events_come_in_order", "of the trunk"),
        (with_one(trained=in_its_own_thread), "test_events_come_in_order", "on the thread .*; call on_event from wait"),
        (ended_as(lost=True), "test_results_are_those_of_one_process", "was lost, though nothing was taken away"),
        (ended_as(result=None), "test_results_are_those_of_one_process", "has no result, as if it had been stopped"),
        (
            ended_as(result=lambda outcome: outcome.result and attrs.evolve(outcome.result, parameters=3)),
            "test_results_are_those_of_one_process",
            "the result of the trunk differs in parameters",
        ),
        (with_one(trained=settling_results), "test_files_are_those_of_one_process", "final.safetensors of the trunk has other bytes"),
        (ended_as(lost=lambda outcome: outcome.error is not None), "test_what_raises_has_failed", "called lost, and would be tried again"),
        (ended_as(error=None), "test_what_raises_has_failed", "a segment that raised has no error"),
        (leaving_a_process(at_once=False), "test_close_ends_everything", "after close.. there is still process 'sleep"),
        (leaving_a_process(at_once=False, start=fork), "test_close_ends_everything", "after close.. there is still process '.+'"),
        (with_one(open=drawing), "test_leaves_the_process_alone", "changed random state of torch; put it back"),
        (ended_as(error="stopped"), "test_stop_saves", "expected neither error nor loss"),
        (with_one(trained=forgetting_state), "test_goes_on_from_what_was_saved", r"saved after \d+ steps was begun after 0"),
        (leaving_a_process(at_once=True), "test_close_at_once_ends_everything", "there is still process 'sleep"),
    ],
)
def test_wrong_workers(
    fails: Kit, plugin: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: type, check: str, message: str
) -> None:
    plugin("workers", target)
    monkeypatch.setattr("anarch_core.testing.marked.AT_ONCE", 0.5)
    monkeypatch.setattr("anarch_core.testing.workers.A_MOMENT", 1.0)
    fails(WorkersConformance, check, message, tmp_path, jobs=1)


@pytest.mark.parametrize(
    ("wrong", "check", "message"),
    [
        ({"capacity": 0, "hours": True}, "test_capacity_is_honest", "there was no room for a job: capacity is 0"),
        ({"stop": not_stopping}, "test_stop_saves", "the job that was asked to stop had not ended"),
    ],
)
def test_workers_that_are_waited_for_in_vain(
    fails: Kit, plugin: Kit, tmp_path: Path, clock: Clock, wrong: dict[str, Any], check: str, message: str
) -> None:
    plugin("workers", taking_hours(clock=clock, **wrong))
    fails(WorkersConformance, check, message, tmp_path, jobs=1)


def test_workers_that_never_come_back(fails: Kit, plugin: Kit, tmp_path: Path) -> None:
    plugin("workers", with_one(wait=waiting_for_ever))
    message = r"within 3 seconds wait\(\) did not return in time"
    fails(WorkersConformance, "test_waits_a_moment", message, tmp_path, patience=3.0, jobs=1)


def test_workers_that_cannot_wait(fails: Kit, plugin: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = "test_building_starts_nothing"

    def writing(self, options):
        Path("log.txt").touch()

    def starting(self, options):
        fall_asleep()

    plugin("workers", with_one(__init__=starting))
    fails(WorkersConformance, check, "started 'sleep 600'; wait for open", tmp_path, monkeypatch)
    plugin("workers", with_one(close=lambda self, at_once=False: self.crew.say("done")))
    fails(WorkersConformance, check, "what was not opened cannot be closed: AttributeError", tmp_path, monkeypatch)
    plugin("workers", with_one(__init__=writing))
    fails(WorkersConformance, check, "wrote log.txt; wait for open", tmp_path, monkeypatch)


def taken_away(self, workers, processes):
    workers.away = "node2 is gone"


def test_workers_whose_losses_are_failures(fails: Kit, plugin: Kit, tmp_path: Path) -> None:
    check = "test_a_lost_worker_is_no_failure"
    plugin("workers", ended_as(lost=False))
    fails(WorkersConformance, check, "set `lost`, for it says nothing", tmp_path, kill=taken_away, jobs=1)
    plugin("workers", ended_as(error=None))
    fails(WorkersConformance, check, "say in one line as `error` what became", tmp_path, kill=taken_away, jobs=1)


def test_right_ones(passes: Kit, plugin: Kit, tmp_path: Path) -> None:
    plugin("workers", Honest)
    passes(WorkersConformance, "test_a_lost_worker_is_no_failure", tmp_path, kill=taken_away, jobs=1)
    kit = type("TestRight", (WorkersConformance,), {"name": "wrong", "jobs": 1})()
    for check in ("capacity_is_honest", "events_come_in_order", "files_are_those_of_one_process", "what_raises_has_failed", "stop_saves"):
        getattr(kit, f"test_{check}")(tmp_path)
