"""Workers that come late, are lost or say what cannot be: what becomes of the run."""

from __future__ import annotations

import pytest

from anarch_core.errors import PluginError
from anarch_core.observer import AbstractObserver, SegmentStarted
from anarch_core.running import dispatch, runner
from anarch_core.running.deaths import TRIES
from anarch_core.running.progress import Silent
from anarch_core.running.runner import run
from anarch_core.workers import Event, InProcess, Outcome


class Here(InProcess):
    """Trains here, and notes what it is asked."""

    def __init__(self):
        super().__init__()
        self.jobs = []

    def submit(self, job):
        self.jobs.append(job.segment.title)
        super().submit(job)


@pytest.fixture
def employ(monkeypatch):
    def employ(workers):
        monkeypatch.setattr(runner, "employed", lambda config, registry, here: (runner.attrs.evolve(config, device="cpu"), workers))
        return workers

    return employ


@pytest.fixture
def config(small):
    return small(jobs=1, threads=1)


class Noting(Silent):
    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def test_nobody_having_room_for_now_does_not_end_a_run(employ, config, tmp_path, monkeypatch):
    monkeypatch.setattr(dispatch, "LONELY", 0.0)

    class Late(Here):
        asked = 0

        @property
        def capacity(self):
            return 0 if self.asked < 4 else 1

        def wait(self):
            self.asked += 1
            return super().wait()

    employ(Late())
    progress = Noting()
    assert run(config, out=tmp_path / "run", progress=progress).status == "finished"
    assert progress.said.count("no worker has room for a segment at the moment; the run waits for one") == 1


class TestLosses:
    def test_a_lost_segment_goes_on_with_others(self, employ, config, tmp_path):
        class Losing(Here):
            lost = 0

            def wait(self):
                if self._jobs and self.lost < TRIES - 1:
                    self.lost += 1
                    return [Outcome(segment=self._jobs.pop().segment.id, error="node n2 is gone", lost=True)]
                return super().wait()

        workers, progress = employ(Losing()), Noting()
        assert run(config, out=tmp_path / "run", progress=progress).status == "finished"
        assert workers.jobs[: workers.lost + 1] == [workers.jobs[0]] * (workers.lost + 1)
        assert f"{workers.jobs[0]}: node n2 is gone; it goes on from where its state was saved" in progress.said

    def test_after_a_few_without_progress_it_is_given_up_with_the_reason(self, employ, config, tmp_path):
        class Leaving(Here):
            def wait(self):
                return [Outcome(segment=self._jobs.pop().segment.id, error="node n2 is gone", lost=True)]

        workers = employ(Leaving())
        results = run(config, out=tmp_path / "run", progress="silent")
        assert workers.jobs.count("trunk, seed 0") == TRIES
        assert results.status == "failed"
        assert {failure.error for failure in results.failed.values()} == {"node n2 is gone, for the 3rd time without getting any further"}
        assert {skip.error for skip in results.skipped.values()} == {"trunk, seed 0 did not get there"}


def test_who_trains_a_segment_is_shown_and_told_where_it_begins(employ, config, tmp_path):
    class Placing(Here):
        """The first job is lost with node 1."""

        def submit(self, job):
            super().submit(job)
            self._crew.on_event(Event("placed", job.segment.id, f"node {len(self.jobs)}"))

        def wait(self):
            if len(self.jobs) == 1 and self._jobs:
                return [Outcome(segment=self._jobs.pop().segment.id, error="node 1 is gone", lost=True)]
            return super().wait()

    class Shown(Silent):
        def __init__(self):
            self.heard = []

        def placed(self, segment, where):
            self.heard.append((segment.title, where))

        def lost(self, segment):
            self.heard.append((segment.title, "lost"))

    class Told(AbstractObserver):
        def __init__(self, options=None):
            super().__init__(options)
            self.workers = []

        def observe(self, event):
            if isinstance(event, SegmentStarted):
                self.workers.append((event.segment.title, event.worker))

    workers, progress, observer = employ(Placing()), Shown(), Told()
    run(config, out=tmp_path / "run", progress=progress, observers=[observer])
    trunk = "trunk, seed 0"
    assert progress.heard[:3] == [(trunk, "node 1"), (trunk, "lost"), (trunk, "node 2")]
    assert observer.workers == [(title, f"node {number}") for number, title in enumerate(workers.jobs[1:], 2)]


@pytest.mark.parametrize(
    ("method", "answer", "message"),
    [
        ("wait", [Outcome(segment="elsewhere")], "gives an outcome of segment 'elsewhere', which it was not given"),
        ("adopt", ["elsewhere"], "adopts segment 'elsewhere', which it was not given"),
        ("wait", None, r"wait\(\) gave a NoneType, expected list or tuple"),
        ("capacity", 1.5, "capacity gave a float, expected int"),
    ],
)
def test_workers_that_say_what_cannot_be_are_named(employ, config, tmp_path, method, answer, message):
    says = lambda *_: answer  # noqa: E731
    says.__name__ = method
    employ(type("Liars", (Here,), {method: property(says) if method == "capacity" else says})())
    with pytest.raises(PluginError, match=f"Liars:? {message}"):
        run(config, out=tmp_path / "run", progress="silent")
