"""A segment that is asked to stop after any of its steps leaves the state after it, and goes on to the same bytes."""

from __future__ import annotations

import functools
import json
import signal

import attrs
import pytest

from anarch_core.checkpoint.schema import SEGMENT_STATE
from anarch_core.checkpoint.state import load_state
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Job
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import tree
from anarch_core.plugin.registry import get_registry
from anarch_core.probe.base import AbstractProbe
from anarch_core.schedule import Clock
from anarch_core.segment.stopping import Stop, Stopped
from anarch_core.workers import run_job

EPOCHS, STEPS_PER_EPOCH = 2, 4


class After(Stop):
    """Is asked to stop while the network takes one of its steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def __call__(self) -> bool:
        self.left -= 1  # asked after every step
        if self.left == 0:
            self.asked = signal.SIGTERM
        return super().__call__()


@pytest.fixture(scope="module")
def prepared(small, tmp_path_factory):
    def prepare(**settings):
        config = small(relax=(), control="none", epochs=EPOCHS, **settings)
        context = RunContext.open(config, RunStore(tmp_path_factory.mktemp("run")), get_registry())
        [trunk] = tree(config, Clock(EPOCHS, STEPS_PER_EPOCH), {}, get_registry())
        return context, Job(segment=trunk)

    return prepare


@pytest.fixture(scope="module")
def final(prepared):
    context, job = prepared()
    assert run_job(context, job, lambda event: None, Stop()).result is not None
    return context.store.segment(job.segment.id).final_file.read_bytes()


@pytest.mark.parametrize("asked", range(1, EPOCHS * STEPS_PER_EPOCH + 1))
def test_the_state_after_the_step_is_saved(prepared, final, asked):
    context, job = prepared()
    outcome = run_job(context, job, lambda event: None, After(asked))
    assert (outcome.result, outcome.error) == (None, None)
    files = context.store.segment(job.segment.id)
    saved = json.loads(load_state(files.resume_file)[1][SEGMENT_STATE])["training"]["iteration"]
    assert saved in (asked, asked - asked // (STEPS_PER_EPOCH + 1))  # it is asked once more where an epoch ends
    assert run_job(context, job, lambda event: None, Stop()).result is not None
    assert files.final_file.read_bytes() == final


class Uncatching(AbstractProbe):
    """Asks to stop, and makes an error of its own of what is raised then, as C++ code does."""

    def __init__(self, stop: Stop) -> None:
        self.stop = stop

    def measure(self, context):
        insist(self.stop)


def insist(stop: Stop, *_: object, **__: object) -> None:
    try:
        stop.ask(signal.SIGTERM)
        stop.ask(signal.SIGTERM)
    except Stopped:
        msg = "could not determine the shape"
        raise ValueError(msg) from None


def test_an_error_that_a_stop_gave_rise_to_is_none_of_the_probe(prepared):
    context, job = prepared(probe=("delta",))
    stop, events = Stop(), []
    outcome = run_job(attrs.evolve(context, probes={"delta": Uncatching(stop)}), job, events.append, stop)
    assert (outcome.result, outcome.error) == (None, None)
    assert "measuring" in {event.kind for event in events}
    assert not [event for event in events if event.kind in ("warning", "measured")]


def test_an_error_that_insisting_gave_rise_to_is_none_of_the_training(prepared, monkeypatch):
    context, job = prepared()
    stop = Stop()
    monkeypatch.setattr("anarch_core.segment.stopping.APART", 0.0)
    monkeypatch.setattr("anarch_core.training.loop.Training.advance", functools.partial(insist, stop))
    outcome = run_job(context, job, lambda event: None, stop)
    assert (outcome.result, outcome.error) == (None, None)
