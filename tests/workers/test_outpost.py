"""A segment trained away from home, to the same bytes, which come home in an order that means something wherever it breaks off."""

import hashlib
import shutil

import pytest

from anarch_core.experiment.companions import companions, wanted_by
from anarch_core.experiment.condition import condition
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Job
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import tree
from anarch_core.plugin.registry import get_registry
from anarch_core.running.runner import run
from anarch_core.schedule import Clock
from anarch_core.segment.stopping import Stop
from anarch_core.workers.base import Outcome
from anarch_core.workers.courier import Desk, Piece, brought
from anarch_core.workers.outpost import Outpost

CHECKED = ("segments/*/*.safetensors", "segments/*/*/*.safetensors", "segments/*/history.jsonl")


def bytes_of(store):
    """What a segment's files are, by path; the state to go on from among them, which is gone when it is done."""
    found = {path for pattern in CHECKED for path in store.path.glob(pattern)}
    return {path.relative_to(store.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(found)}


class CutOffError(Exception):
    """The line is cut."""


class Home:
    """A run whose segments are trained elsewhere, by somebody who may be cut off or asked to stop."""

    def __init__(self, config, path):
        self.store, self.config, self.registry = RunStore(path), config, get_registry()
        self.context = RunContext.open(config, self.store, self.registry)
        clock = Clock(config.epochs, self.context.iterations_per_epoch)
        moments = {seed: self.context.moments(clock) for seed in config.seeds}
        self.segments = tree(config, clock, moments, self.registry)
        self.seen = []
        self.stop = Stop()

    def job(self, segment, **asked):
        keep = {other.leaves.iteration for other in self.segments if other.parent is not None and other.parent.id == segment.id}
        keep |= {moment.iteration for moment in self.context.probe_moments(segment)}
        carries = self.config.optimizer_state == "carry"
        wanted, planned = wanted_by(self.context.probes), {other.id: other for other in self.segments}
        others = companions(segment, wanted, planned, self.config.seeds[0])
        return Job(segment=segment, keep=frozenset(keep), keep_optimizer=carries, companions=others, **asked)

    def train(self, segment, *, look=lambda message: None, config=None):
        """Have one segment trained; ``look`` at each message before it is taken."""
        job = self.job(segment)
        inbox = Desk(self.store, [segment.id])
        outpost = Outpost(config or self.config, self.context.source, self.stop)
        try:
            desk = outpost.expect(job)
            for piece in brought(self.store, job):
                desk.take(piece)

            def send(message):
                look(message)
                self.seen.append(message)
                if isinstance(message, Piece):
                    inbox.take(message)

            return outpost.run(job, send)
        except CutOffError as error:  # while the last files were sent
            return Outcome.failed(segment.id, error)
        finally:
            inbox.drop()
            outpost.close()

    def all(self):
        for segment in self.segments:
            outcome = self.train(segment)
            assert outcome.result is not None, outcome


ASKED = {"optimizer_state": "carry", "switch": "at:2", "control": "continued", "probe": "delta"}


@pytest.fixture(scope="module")
def reference(small, tmp_path_factory):
    out = tmp_path_factory.mktemp("reference")
    run(small(**ASKED), out=out, progress="silent")
    return bytes_of(RunStore(out))


@pytest.fixture
def home(small, tmp_path):
    return Home(small(**ASKED), tmp_path / "home")


def test_everything_trained_elsewhere_has_the_bytes_of_what_is_trained_here(home, reference):
    home.all()
    assert bytes_of(home.store) == reference
    for segment in home.segments:
        found = condition(home.store.segment(segment.id))
        assert found.result is not None
        assert not found.wrong
        # so that a run that goes on believes long files by their headers
        assert all(
            (home.store.segment(segment.id).path / name).stat().st_mtime_ns == noted.modified for name, noted in found.left.files.items()
        )


COMPARED = {"noise_seeds": "0,1", "seeds": "0,1", "switch": "at:1", "control": "continued", "probe": "stability,cka", "probe_at": "1"}
OPTIONS = {"stability": {"points": 3}, "cka": {"against": ["control", "sibling"], "samples": 20, "batch_size": 20}}


def test_networks_that_a_segment_is_compared_with_are_brought(small, tmp_path):
    config = small(**COMPARED, options=OPTIONS)
    here = run(config, out=tmp_path / "here", progress="silent")
    home = Home(config, tmp_path / "home")
    home.all()
    assert bytes_of(home.store) == bytes_of(RunStore(here.path))
    measured = {segment.id: segment.probes for segment in here.segments}
    assert {segment.id: home.store.segment(segment.id).finished()[0].probes for segment in home.segments} == measured
    compared = [segment for segment in here.segments if segment.noise and segment.seed]
    assert [sorted(segment.probes) for segment in compared] == [["stability"], ["cka", "stability"]]
    assert all(list(segment.probes["stability"]) == ["1ep", "end"] for segment in compared)


def cut_after(pieces):
    """Raises at the n-th piece of a file."""
    left = pieces

    def look(message):
        nonlocal left
        if isinstance(message, Piece):
            left -= 1
            if left < 0:
                raise CutOffError

    return look


@pytest.fixture
def _always_saving(monkeypatch):
    monkeypatch.setattr("anarch_core.segment.saving.SaveClock.due", lambda self, every=None: True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # whoever is cut off leaves a history open
@pytest.mark.usefixtures("_always_saving")
def test_wherever_the_line_is_cut_what_is_at_home_can_be_gone_on_with(home, reference):
    for segment in home.segments:
        for pieces in range(1, 100):
            outcome = home.train(segment, look=cut_after(pieces))
            assert not condition(home.store.segment(segment.id)).wrong
            if outcome.error is None:
                break
    home.all()
    assert bytes_of(home.store) == reference


def test_a_segment_asked_to_stop_sends_its_state_home_and_goes_on_from_it(home, reference):
    trunk = home.segments[0]

    def look(message):
        if not isinstance(message, Piece) and message.kind == "trained" and message.value[0] == 4:
            home.stop.ask_in(0)

    assert home.train(trunk, look=look) == Outcome(segment=trunk.id)
    assert home.store.segment(trunk.id).resume_file.exists()
    home.stop = Stop()
    home.all()
    assert bytes_of(home.store) == reference


def test_a_finished_segment_is_asked_for_more_away_from_home(home, small, tmp_path):
    home.all()
    more = small(**{**ASKED, "probe": "delta,weights", "switch": "at:1,2"})
    run(more, out=tmp_path / "here", progress="silent")
    grown = Home(more, home.store.path)
    grown.all()
    assert bytes_of(grown.store) == bytes_of(RunStore(tmp_path / "here"))
    assert not list(grown.store.path.glob("segments/*/retraced"))


@pytest.mark.usefixtures("_always_saving")
def test_wherever_the_line_is_cut_a_finished_segment_stays_finished(small, tmp_path):
    asked = {**ASKED, "probe": "weights", "switch": "at:2"}
    home = Home(small(**asked), tmp_path / "home")
    home.train(home.segments[0])
    grown = Home(small(**{**asked, "switch": "at:1,2"}, options={"weights": {"bins": 50}}), home.store.path)
    trunk = grown.segments[0]
    for pieces in range(1, 100):
        outcome = grown.train(trunk, look=cut_after(pieces))
        found = condition(grown.store.segment(trunk.id))
        assert found.result is not None
        assert not found.wrong
        if outcome.error is None:
            break
    assert outcome.error is None


def test_only_what_training_reads_is_brought(home):
    home.all()
    branch = home.segments[-1]
    store = home.store.segment(branch.id)
    parent = {f"snapshots/{branch.leaves.iteration}.safetensors", f"snapshots/{branch.leaves.iteration}.optimizer.safetensors"}
    own = {"final.safetensors", "history.jsonl", "result.json", "segment.json"}

    def names():
        return {piece.name for piece in brought(home.store, home.job(branch))}

    assert names() == parent | own
    store.error_file.write_text("of an earlier try")
    assert store.error_file.name not in names()
    store.result_file.unlink()
    assert names() == parent


def test_a_segment_whose_parent_is_another_by_now_begins_anew_and_its_files_are_gone_at_home_at_once(home):
    home.all()
    trunk, branch = home.segments[0], home.segments[-1]
    snapshot = home.store.segment(trunk.id).snapshot(branch.leaves.iteration)
    shutil.copy(home.store.segment(trunk.id).final_file, snapshot)
    left = []

    def look(message):
        if not isinstance(message, Piece) and message.kind == "started":
            left.append(home.store.segment(branch.id).result_file.exists())

    assert home.train(branch, look=look).result is not None
    assert left == [False]


def test_nothing_is_left_of_an_outpost(home, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    home.train(home.segments[0])
    assert list((tmp_path / "scratch").iterdir()) == []
