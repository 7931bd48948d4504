"""Whatever workers do, a run loses nothing: workers that come late, get lost, and lie. None of them is an engine."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from pathlib import Path

import attrs
import pytest

from anarch_core.errors import ConfigError, PluginError
from anarch_core.experiment.results import Results
from anarch_core.experiment.tree import tree
from anarch_core.plugin.registry import get_registry
from anarch_core.running.progress import Silent
from anarch_core.running.runner import resume, run
from anarch_core.schedule import Clock
from anarch_core.segment.stopping import InterruptedRunError
from anarch_core.version import __version__
from anarch_core.workers import Event, InProcess, Outcome, run_job

STEPS_PER_EPOCH = 4


class Saying(Silent):
    """Remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines += [] if text.startswith("loading") else [text]


class Away(BaseException):
    """Breaks off what is trained, as a machine does that fails."""


class Workers(InProcess):
    """Trains here, one segment a call; ``lose(event)`` says of whom to be robbed, at which event."""

    def lose(self, event):
        return False

    def wait(self):
        return [self.train(self._jobs.pop(0))] if self._jobs else []

    def train(self, job):
        gone = []

        def told(event):
            self._crew.on_event(event)
            if self.lose(event):
                gone.append(True)
                raise Away

        outcome = run_job(self._crew.context, job, told, self._crew.stop)
        return Outcome(segment=job.segment.id, error="node2 is gone", lost=True) if gone else outcome


@pytest.fixture
def employ(monkeypatch):
    """Puts workers in the place of the local ones."""

    def employ(workers=Workers, **methods):
        cls = type("Employed", (workers,), methods)
        monkeypatch.setattr("anarch_plugins.workers.local.workers.LocalWorkers", cls)
        return cls

    return employ


@pytest.fixture(scope="module")
def config(small):
    return small(epochs=2, branch_epochs=1, switch="at:1", control=("continued",), seeds="0,1")


@pytest.fixture(scope="module")
def alone(small):
    return small(epochs=2, relax=(), control="none")


def left(path: Path) -> dict[str, bytes]:
    files = [*path.glob("segments/*/final.safetensors"), *path.glob("segments/*/history.jsonl"), *path.glob("segments/*/snapshots/*")]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def trunk_of(config, seed: int) -> str:
    """Identity of the trunk of a seed."""
    clock = Clock(config.epochs, STEPS_PER_EPOCH)
    return tree(attrs.evolve(config, seeds=(seed,)), clock, {}, get_registry())[0].id


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    return left(run(config, out=tmp_path_factory.mktemp("whole") / "run", progress="silent").path)


@pytest.fixture(scope="module")
def trunk(alone, tmp_path_factory):
    return left(run(alone, out=tmp_path_factory.mktemp("trunk") / "run", progress="silent").path)


class TestNobodyForNow:
    def test_comes_and_goes(self, config, whole, employ, tmp_path):
        asked = iter(range(10**6))
        employ(capacity=property(lambda self: (0, 1, 2, 0, 0, 3)[next(asked) % 6]))
        results = run(config, out=tmp_path / "run", progress="silent")
        assert (results.status, left(results.path)) == ("finished", whole)

    def test_can_be_interrupted(self, config, employ, tmp_path):
        waited, closed = [], []

        def wait(self):
            waited.append(True)
            if len(waited) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            assert len(waited) < 6
            return []

        employ(capacity=0, wait=wait, close=lambda self, at_once=False: closed.append(at_once))
        with pytest.raises(InterruptedRunError, match="nothing is lost; go on with: anarch resume"):
            run(config, out=tmp_path / "run", progress="silent")
        assert Results.read(tmp_path / "run").status == "stopped"
        assert closed == [False]


class TestLost:
    def test_again_and_again_with_progress_comes_to_the_same_end(self, config, whole, employ, tmp_path, monkeypatch):
        """Every state that is saved is the last that its worker does."""
        monkeypatch.setattr("anarch_core.segment.saving.SAVE_EVERY", 0.0)
        monkeypatch.setattr("anarch_core.segment.saving.SaveClock.due", lambda self, every=None: True)
        lost = []
        employ(lose=lambda self, event: event.kind == "saved" and not lost.append(event.segment))
        saying = Saying()
        results = run(config, out=tmp_path / "run", progress=saying)
        assert (results.status, left(results.path)) == ("finished", whole)
        assert len(lost) > 3 * len(results.segments)
        assert saying.lines[0] == "trunk, seed 0: node2 is gone; it goes on from where its state was saved"

    def test_without_progress_is_given_up_and_the_others_go_on(self, config, whole, employ, tmp_path):
        lost = []
        employ(lose=lambda self, event: event.kind == "scored" and event.segment == trunk_of(config, 0) and not lost.append(event))
        saying = Saying()
        results = run(config, out=tmp_path / "run", progress=saying)
        assert (results.status, len(lost)) == ("failed", 3)
        [failed] = results.failed.values()
        assert failed.error == "node2 is gone, for the 3rd time without getting any further"
        assert {skipped.error for skipped in results.skipped.values()} == {"trunk, seed 0 did not get there"}
        assert {segment.seed for segment in results.segments} == {1}
        assert saying.lines == 2 * ["trunk, seed 0: node2 is gone; it goes on from where its state was saved"]
        employ()
        assert left(resume(results.path, progress="silent").path) == whole

    def test_beside_others_that_go_on(self, config, whole, employ, tmp_path):
        """Of two at once, one is lost before the other has begun: both end as they would."""
        lost = []
        employ(
            capacity=2,
            lose=lambda self, event: event.kind == "scored" and len(lost) < 2 and bool(self._jobs) and not lost.append(event),
        )
        results = run(config, out=tmp_path / "run", progress="silent")
        assert (results.status, len(lost), left(results.path)) == ("finished", 2, whole)

    def test_while_the_run_stops_is_no_failure(self, config, whole, employ, tmp_path):
        def lose(self, event):
            if event.kind == "scored":
                os.kill(os.getpid(), signal.SIGTERM)
            return event.kind == "scored"

        employ(lose=lose)
        with pytest.raises(InterruptedRunError):
            run(config, out=tmp_path / "run", progress="silent")
        results = Results.read(tmp_path / "run")
        assert (results.status, results.failed) == ("stopped", {})
        employ()
        assert left(resume(results.path, progress="silent").path) == whole

    def test_when_it_had_a_result_is_no_loss(self, alone, trunk, employ, tmp_path):
        """The worker is gone after the result was written and before it was told: it is not trained again."""
        begun = []
        employ(
            train=lambda self, job: (
                begun.append(Workers.train(self, job)) or Outcome(segment=job.segment.id, error="gone", lost=len(begun) < 2)
            )
        )
        results = run(alone, out=tmp_path / "run", progress="silent")
        assert left(results.path) == trunk


def outcome_of(job, **given):
    return Outcome(**{"segment": job.segment.id, "error": "no", **given})


def wait(self):
    return None


def adopt(self, known):
    return None


LOCAL = "workers 'local' of plugin 'local'"
LIES = {
    "an outcome of a segment that it was not given": (
        {"train": lambda self, job: outcome_of(job, segment="0" * 12)},
        "gives an outcome of segment '000000000000'",
    ),
    "two outcomes of one": ({"wait": lambda self: 2 * [outcome_of(self._jobs[0])]}, "gives an outcome of segment '.*', which"),
    "what is no outcome": ({"train": lambda self, job: "done"}, "a str, expected Outcome"),
    "nothing at all": ({"wait": wait}, r"wait\(\) gave a NoneType, expected"),
    "the result of another segment": (
        {"train": lambda self, job: attrs.evolve(r := Workers.train(self, job), result=attrs.evolve(r.result, id="0" * 12))},
        "result of segment '000000000000'",
    ),
    "what is no result": ({"train": lambda self, job: outcome_of(job, error=None, result={"id": 3})}, "a dict, expected SegmentResult"),
    "what is no event": ({"train": lambda self, job: self._crew.on_event("started")}, "a str, expected Event"),
    "a capacity that is no number": ({"capacity": None}, "capacity gave a NoneType, expected int"),
    "segments that nobody knows": ({"adopt": lambda self, known: ["0" * 12]}, "adopts segment '000000000000'"),
    "one segment for several": ({"adopt": lambda self, known: known[0]}, "adopts segment '.', which"),
    "nothing where segments belong": ({"adopt": adopt}, r"adopt\(\) gave a NoneType, expected Collection"),
    "what is no segment": ({"adopt": lambda self, known: [["x"]]}, r"adopts segment \['x'\]"),
    "open() that raises": ({"open": lambda self, crew: {}["x"]}, "KeyError: 'x'"),
    "submit() that raises": ({"submit": lambda self, job: 1 / 0}, "ZeroDivisionError: division by zero"),
    "wait() that raises": ({"wait": lambda self: [][0]}, "IndexError"),
    "wait() that leaves": ({"wait": lambda self: exit(3)}, "SystemExit: 3"),
    "capacity that raises": ({"capacity": property(lambda self: {}["x"])}, "KeyError: 'x'"),
    "adopt() that raises": ({"adopt": lambda self, known: {}["x"]}, "KeyError: 'x'"),
}


class TestThatLie:
    @pytest.mark.parametrize("lie", LIES)
    def test_are_told_by_name_and_what_they_did_stays(self, lie, alone, trunk, employ, tmp_path):
        methods, message = LIES[lie]
        employ(**methods)
        with pytest.raises(PluginError, match=message) as caught:
            run(alone, out=tmp_path / "run", progress="silent")
        assert str(caught.value).startswith(f"{LOCAL} (anarch")
        assert "\n" not in str(caught.value)
        employ()
        assert left(resume(tmp_path / "run", progress="silent").path) == trunk

    def test_that_cannot_be_closed_have_done_what_they_did(self, alone, trunk, employ, tmp_path):
        employ(close=lambda self, at_once=False: {}["x"])
        saying = Saying()
        results = run(alone, out=tmp_path / "run", progress=saying)
        assert (results.status, left(results.path)) == ("finished", trunk)
        [line] = saying.lines
        assert line == f"warning: the workers were not closed: {LOCAL} (anarch {__version__}): KeyError: 'x'"

    def test_are_not_blamed_for_what_the_run_does_with_an_event(self, alone, employ, tmp_path):
        class Broken(Silent):
            def trained(self, segment, iteration, row):
                raise ValueError("the display is full")

        employ(wait=lambda self: self._crew.on_event(Event("trained", self._jobs[0].segment.id, (1, None))))
        with pytest.raises(ValueError, match="the display is full"):
            run(alone, out=tmp_path / "run", progress=Broken())

    def test_that_tell_in_another_thread_are_named(self, alone, trunk, employ, tmp_path):
        """Two threads in what the run knows of its segments would lose some of it, now and then."""

        def wait(self):
            segment = self._jobs[0].segment.id
            beside = threading.Thread(target=tell, args=(self, Event("started", segment)), name="listener")
            beside.start()
            beside.join()
            return []

        def tell(self, event):
            with contextlib.suppress(PluginError):
                self._crew.on_event(event)

        employ(wait=wait)
        with pytest.raises(PluginError, match="tells events in the thread 'listener', not in wait"):
            run(alone, out=tmp_path / "run", progress="silent")
        employ()
        assert left(resume(tmp_path / "run", progress="silent").path) == trunk

    def test_of_whom_nothing_is_believed_after_a_loss(self, alone, trunk, employ, tmp_path):
        """A worker that was given up and works on tells of a switch and a snapshot that are not there, and of what nobody asked for."""
        late = []

        def wait(self):
            if not late:
                late.append(self._jobs.pop(0).segment.id)
                return [Outcome(segment=late[0], error="node2 is gone", lost=True)]
            return Workers.wait(self)

        def capacity(self):
            if late and not self._jobs:
                for kind, value in (("switch", 3), ("trained", (4, None)), ("snapshot", 4)):
                    self._crew.on_event(Event(kind, late[0], value))
                    self._crew.on_event(Event(kind, "0" * 12, value))
            return 1

        employ(wait=wait, capacity=property(capacity))
        results = run(alone, out=tmp_path / "run", progress="silent")
        assert (results.status, left(results.path)) == ("finished", trunk)

    def test_cannot_be_made(self, alone, employ, tmp_path):
        def refuse(self, options):
            msg = "there is no 'sbatch' here; log in to a node of the cluster"
            raise ConfigError(msg)

        employ(__init__=refuse)
        with pytest.raises(ConfigError, match="there is no 'sbatch' here"):
            run(alone, out=tmp_path / "run", progress="silent")
        assert not (tmp_path / "run").exists()

    def test_that_raise_when_asked_to_stop_do_not_keep_the_run_from_it(self, alone, trunk, employ, tmp_path):
        def lose(self, event):
            if event.kind == "scored":
                os.kill(os.getpid(), signal.SIGTERM)
            return False

        employ(lose=lose, stop=lambda self: {}["x"])
        with pytest.raises((PluginError, InterruptedRunError)):
            run(alone, out=tmp_path / "run", progress="silent")
        employ()
        assert left(resume(tmp_path / "run", progress="silent").path) == trunk


class Chance(Workers):
    """Comes and goes, takes jobs in any order, is lost at any event, and is told to stop now and then."""

    dice = random.Random()
    until = None

    @property
    def capacity(self):
        return self.dice.randrange(4)

    def wait(self):
        if not self._jobs or self.dice.random() < 0.2:
            return []
        self.until = self.dice.randrange(1, 12) if self.dice.random() < 0.6 else None
        return [self.train(self._jobs.pop(self.dice.randrange(len(self._jobs))))]

    def lose(self, event):
        if self.dice.random() < 0.01:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.until is not None:
            self.until -= 1
        return self.until == 0


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_a_run_comes_to_the_same_end(config, whole, employ, tmp_path, monkeypatch, seed):
    monkeypatch.setattr("anarch_core.segment.saving.SaveClock.due", lambda self, every=None: True)
    employ(Chance, dice=random.Random(seed))
    for _ in range(30):
        with contextlib.suppress(InterruptedRunError):
            if run(config, out=tmp_path / "run", progress="silent").status == "finished":
                break
    else:
        employ()
        assert resume(tmp_path / "run", progress="silent").status == "finished"
    assert left(tmp_path / "run") == whole
