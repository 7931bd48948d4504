"""What a job does on its node."""

from __future__ import annotations

import pickle
import signal
import time
from pathlib import Path

import attrs
import pytest

from anarch_core.files.tables import read_table, write_json
from anarch_core.planning.need import Need
from anarch_core.workers import event_from_line, versions
from anarch_plugins.workers.slurm.task import SegmentTask, await_file, place, requeue


@pytest.fixture
def task(work):
    given = work()
    config, run = given.crew.context.config, given.run
    return SegmentTask(
        run=str(run), config=config, need=given.crew.need, begun_with=versions(config), job=given.jobs[0], events=str(run / "events.jsonl")
    )


def told(task):
    with open(task.events, "rb") as file:  # noqa: PTH123
        events = [event_from_line(line, task.job.segment.id) for line in file]
    return [(event.kind, event.value) for event in events if event is not None]


@pytest.fixture
def requeued():
    """What submitit's handler would be asked, in its place."""
    asked = []
    found = signal.signal(signal.SIGUSR2, lambda *_: asked.append("again"))
    yield asked
    signal.signal(signal.SIGUSR2, found)


def signalled(monkeypatch, number, after):
    """Lets Slurm send a signal when a task tells of something."""
    from anarch_plugins.workers.slurm.telling import Teller

    real = Teller.__call__

    def tell(self, event):
        real(self, event)
        if event.kind == after:
            signal.raise_signal(number)

    monkeypatch.setattr(Teller, "__call__", tell)


def test_it_travels_as_text(task):
    assert pickle.loads(pickle.dumps(task)) == task


def test_it_ends_with_what_came_out(task, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    task()
    events = told(task)
    assert events[0] == ("placed", "Slurm job 17 on n1")
    assert events[-1] == ("ended", {"error": None, "trace": None})


def test_when_its_time_is_out_the_state_is_saved_before_the_job_is_requeued(task, monkeypatch, requeued):
    signalled(monkeypatch, signal.SIGUSR2, "trained")
    task()
    assert requeued == ["again"]
    assert [kind for kind, _ in told(task)][-1] == "saved"


def test_a_time_that_does_not_suffice_to_begin_is_no_reason_to_begin_again(task, monkeypatch, requeued):
    signalled(monkeypatch, signal.SIGUSR2, "placed")
    with pytest.raises(SystemExit, match="before anything was saved; ask for more with --slurm-time"):
        task()
    assert requeued == []


def test_a_job_that_slurm_does_not_requeue_says_so(monkeypatch):
    def refuse(*_):
        raise OSError("no scontrol here")

    found = signal.signal(signal.SIGUSR2, refuse)
    try:
        with pytest.raises(SystemExit, match="Slurm did not requeue the job: no scontrol here"):
            requeue(saved=True)
    finally:
        signal.signal(signal.SIGUSR2, found)


def test_when_it_is_told_to_end_it_saves_and_is_not_requeued(task, monkeypatch, requeued):
    signalled(monkeypatch, signal.SIGTERM, "trained")
    task()
    assert requeued == []
    assert [kind for kind, _ in told(task)][-1] == "saved"


def test_other_data_than_the_runs_are_refused(task, work):

    environment = Path(task.run) / "run.json"
    write_json(environment, {**read_table(environment), "data_sha256": "0"})
    task()
    assert "is another one here than the one that the run began with" in told(task)[-1][1]["error"]


def test_memory_that_does_not_suffice_names_the_option(task):
    attrs.evolve(task, need=Need(peak_bytes=2**60, work="training", model_bytes=1))()
    assert told(task)[-1][1]["error"].endswith("or ask for more with --slurm-memory")


def test_a_node_with_another_environment_is_told_what_differs(task):
    attrs.evolve(task, begun_with={**task.begun_with, "torch": "1.0"})()
    assert "the run was begun with 1.0; let all machines use the same environment" in told(task)[-1][1]["error"]


def test_a_gpu_that_is_not_there_fails_the_segment(task):
    attrs.evolve(task, config=attrs.evolve(task.config, device="cuda:99"))()
    assert "is not there" in told(task)[-1][1]["error"]


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n1"}, "Slurm job 17 on n1"),
        ({"SLURM_JOB_ID": "18", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3", "SLURMD_NODENAME": "n1"}, "Slurm job 17_3 on n1"),
        ({"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n1", "SLURM_JOB_GPUS": "2", "CUDA_VISIBLE_DEVICES": "0"}, "Slurm job 17 on n1, GPU 2"),
        ({"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n1", "CUDA_VISIBLE_DEVICES": "0"}, "Slurm job 17 on n1, GPU 0"),
    ],
)
def test_it_says_where_it_is(environment, words):
    assert place(environment, gpu=True) == words


def test_a_card_is_not_told_of_a_job_that_does_not_use_it():
    assert place({"SLURM_JOB_ID": "17", "SLURMD_NODENAME": "n1", "CUDA_VISIBLE_DEVICES": "0"}, gpu=False) == "Slurm job 17 on n1"


def test_a_snapshot_that_is_on_its_way_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr("anarch_plugins.workers.slurm.task.time.sleep", lambda _: (tmp_path / "x").touch())
    await_file(tmp_path / "x")
    assert (tmp_path / "x").exists()
    monkeypatch.undo()
    before = time.monotonic()
    await_file(tmp_path / "y", seconds=0.0)
    assert time.monotonic() < before + 1
