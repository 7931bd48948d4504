"""Workers that outlive a run: what jobs of an earlier process still train is not given to others, and what comes of it counts."""

from __future__ import annotations

import attrs
import pytest

from anarch_core.experiment.events import Job
from anarch_core.experiment.results import Results
from anarch_core.experiment.segments import snapshots
from anarch_core.experiment.tree import tree
from anarch_core.observer import AbstractObserver, EpochDone, SegmentFinished, SegmentStarted
from anarch_core.plugin.registry import get_registry
from anarch_core.running.progress import Silent
from anarch_core.running.runner import resume, run
from anarch_core.schedule import Clock, Moment
from anarch_core.segment.stopping import InterruptedRunError
from anarch_core.workers import InProcess, Outcome, run_job

STEPS_PER_EPOCH = 4


class Told(AbstractObserver):
    def __init__(self, options=None):
        super().__init__(options)
        self.events = []

    def observe(self, event):
        self.events.append(event)


class Begun(Silent):
    def __init__(self):
        self.trained_here, self.lines = [], []

    def started(self, segment):
        self.trained_here.append((segment.kind, segment.seed))

    def say(self, text):
        self.lines += [] if text.startswith(("loading", "stopping")) else [text]


class Outliving(InProcess):
    """Has the trunk of seed 0 still, as another question had it asked for; tells of it from its middle on."""

    asked_before = None

    def adopt(self, known):
        config = self.asked_before
        clock = Clock(config.epochs, STEPS_PER_EPOCH)
        switch = {Moment(int(epoch) * STEPS_PER_EPOCH, STEPS_PER_EPOCH) for epoch in config.switch.removeprefix("at:").split(",")}
        segments = tree(config, clock, dict.fromkeys(config.seeds, switch), get_registry())
        trunk = next(segment for segment in segments if segment.kind == "trunk" and segment.seed == 0)
        assert trunk.id in known
        self.theirs = Job(segment=trunk, keep=frozenset(snapshots(segments).get(trunk.id, ())))
        return [trunk.id]

    def wait(self):
        if self.theirs is None:
            return super().wait()
        job, self.theirs = self.theirs, None
        return [self.outlived(job)]

    def outlived(self, job):
        def told(event):
            if event.kind == "trained" and event.value[0] > STEPS_PER_EPOCH:
                self._crew.on_event(event)

        return run_job(self._crew.context, job, told, self._crew.stop)

    def submit(self, job):
        assert self.theirs is None or job.segment.id != self.theirs.segment.id
        super().submit(job)


def left(path):
    files = [*path.glob("segments/*/final.safetensors"), *path.glob("segments/*/history.jsonl"), *path.glob("segments/*/snapshots/*")]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def config(small):
    return small(epochs=3, branch_epochs=1, switch="at:1", control=(), seeds="0,1")


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    return left(run(config, out=tmp_path_factory.mktemp("whole") / "run", progress="silent").path)


@pytest.fixture
def outliving(config, monkeypatch):
    def employ(**methods):
        cls = type("Employed", (Outliving,), {"asked_before": config, **methods})
        monkeypatch.setattr("anarch_plugins.workers.local.workers.LocalWorkers", cls)

    return employ


def test_a_segment_is_left_to_whoever_has_it_and_counts_when_it_ends(config, whole, outliving, tmp_path):
    outliving()
    told, begun = Told(), Begun()
    results = run(config, out=tmp_path / "run", progress=begun, observers=[told])
    assert (results.status, left(results.path)) == ("finished", whole)
    assert ("trunk", 0) not in begun.trained_here
    assert len({event.segment.id for event in told.events if isinstance(event, SegmentFinished)}) == len(results.segments)


def test_observers_are_told_its_epochs_once_and_after_it_began(config, outliving, tmp_path):
    outliving()
    told = Told()
    run(config, out=tmp_path / "run", progress="silent", observers=[told])
    own = [
        event
        for event in told.events
        if getattr(event, "segment", None) is not None and (event.segment.kind, event.segment.seed) == ("trunk", 0)
    ]
    assert isinstance(own[0], SegmentStarted)
    assert [event.epoch for event in own if isinstance(event, EpochDone)] == [0, 1, 2, 3]


def test_what_it_was_not_asked_for_is_made_when_it_ends(config, small, outliving, tmp_path):
    more = small(epochs=3, branch_epochs=1, switch="at:1,2", control=(), seeds="0,1", probe="weights")
    expected = left(run(more, out=tmp_path / "expected", progress="silent").path)
    outliving()
    results = run(more, out=tmp_path / "run", progress="silent")
    assert (results.status, left(results.path)) == ("finished", expected)
    [trunk] = [segment for segment in results.segments if (segment.kind, segment.seed) == ("trunk", 0)]
    assert trunk.probes["weights"].keys() == {"start", "end"}


@pytest.mark.parametrize(
    ("how", "status"),
    [({"lost": True, "error": "Slurm forgot it"}, "finished"), ({"error": "it raised"}, "failed"), ({}, "stopped")],
)
def test_one_that_ends_otherwise(config, whole, outliving, tmp_path, how, status):
    outliving(outlived=lambda self, job: Outcome(segment=job.segment.id, **how))
    begun = Begun()
    if status == "stopped":
        with pytest.raises(InterruptedRunError):
            run(config, out=tmp_path / "run", progress=begun)
    else:
        run(config, out=tmp_path / "run", progress=begun)
    results = Results.read(tmp_path / "run")
    assert results.status == status
    assert (("trunk", 0) in begun.trained_here) == (status == "finished")
    outliving(adopt=lambda self, known: vars(self).update(theirs=None) or ())
    assert left(resume(results.path, progress="silent").path) == whole


def test_one_that_finished_before_it_was_adopted(config, whole, outliving, tmp_path):
    """It ended between two looks: its result is there when the run asks who is still at work."""
    run(attrs.evolve(config, seeds=(0,)), out=tmp_path / "run", progress="silent")
    outliving()
    begun = Begun()
    results = run(config, out=tmp_path / "run", progress=begun)
    assert (results.status, left(results.path)) == ("finished", whole)
    assert {seed for _, seed in begun.trained_here} == {1}
