"""A segment that is asked to stop after any of its steps leaves the state after it, and goes on to the same bytes."""

from __future__ import annotations

import json
import signal

import pytest

from anarch_core.checkpoint.schema import SEGMENT_STATE
from anarch_core.checkpoint.state import load_state
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Job
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import tree
from anarch_core.plugin.registry import get_registry
from anarch_core.schedule import Clock
from anarch_core.segment.stopping import Stop
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
    def prepare():
        config = small(relax=(), control="none", epochs=EPOCHS)
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
