"""What observers are told of whole runs, small ones, and that whatever they do, the run is the same."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path

import attrs
import pytest

from anarch_core.errors import MissingDependencyError, OptionError, UnknownComponentError
from anarch_core.experiment.results import Results
from anarch_core.observer import (
    AbstractObserver,
    EpochDone,
    Measured,
    RunBegun,
    RunFinished,
    SegmentEvent,
    SegmentFailed,
    SegmentFinished,
    SegmentSkipped,
    SegmentsPlanned,
    SegmentStarted,
    SwitchFound,
    Warned,
)
from anarch_core.plugin.records import ObserverInfo
from anarch_core.probe import Measurement
from anarch_core.running import audience
from anarch_core.running.progress import Silent
from anarch_core.running.runner import resume, run
from anarch_core.segment.stopping import InterruptedRunError

STEPS_PER_EPOCH = 4


class Noting(AbstractObserver):
    def __init__(self, options=None):
        super().__init__(options)
        self.told = []

    def observe(self, event):
        self.told.append(event)

    def of(self, kind):
        return [event for event in self.told if isinstance(event, kind)]


class Stopping(Silent):
    """Asks the run to stop when the trunk has come to an epoch; says what it was told to say."""

    def __init__(self, epoch=None):
        self.at, self.said = epoch and epoch * STEPS_PER_EPOCH, []

    def trained(self, segment, iteration, row):
        if segment.kind == "trunk" and iteration == self.at:
            os.kill(os.getpid(), signal.SIGTERM)

    def say(self, text):
        self.said.append(text)


def bytes_of(path: Path) -> dict[str, bytes]:
    found = [*path.glob("segments/*/final.safetensors"), *path.glob("segments/*/history.jsonl")]
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


def rows(observer, **marks):
    told = [event for event in observer.of(EpochDone) if all(getattr(event, name) == value for name, value in marks.items())]
    return Counter((event.segment.id, event.epoch) for event in told)


@pytest.fixture(scope="module")
def config(small):
    return small(probe="delta", switch="at:1", control="continued")


@pytest.fixture(scope="module")
def observed(config, tmp_path_factory):
    noting = Noting()
    results = run(config, out=tmp_path_factory.mktemp("observed") / "run", progress="silent", observers=[noting])
    return results, noting


class TestARun:
    def test_begins_with_what_is_run_and_ends_with_what_came_out(self, observed, config):
        results, noting = observed
        begun, planned, over = noting.told[0], noting.told[1], noting.told[-1]
        assert isinstance(begun, RunBegun)
        assert isinstance(planned, SegmentsPlanned)
        assert isinstance(over, RunFinished)
        assert (Path(begun.path), begun.resumed) == (results.path.absolute(), False)
        assert begun.config["run"]["relax"] == ("efcn",)
        assert begun.config["model"]["cnn1d"]["channels"] == 3
        assert begun.run == json.loads((results.path / "run.json").read_text())["run"]
        assert {"anarch", "torch"} <= set(begun.environment["versions"])
        assert (over.status, set(over.finished)) == ("finished", {segment.id for segment in results.segments})
        assert json.loads(Path(over.results).read_text())["status"] == "finished"

    def test_is_a_tree_on_the_clock_of_the_network(self, observed):
        _, noting = observed
        trunk, continued, branch = noting.of(SegmentsPlanned)[0].segments
        assert (trunk.parent, trunk.first_step, trunk.iterations) == (None, 0, 3 * STEPS_PER_EPOCH)
        for child, kind, relaxation in ((continued, "continued", None), (branch, "branch", "efcn")):
            assert (child.kind, child.relaxation, child.parent, child.switch_epoch) == (kind, relaxation, trunk.id, 1.0)
            assert (child.parent_iteration, child.first_step) == (STEPS_PER_EPOCH, STEPS_PER_EPOCH)
        steps = [event.step for event in noting.of(EpochDone) if event.segment.id == branch.id]
        assert steps == [STEPS_PER_EPOCH * epoch for epoch in (1, 2, 3)]
        assert branch.settings["transition"]["relaxation"] == "efcn"
        assert branch.settings["task"]["model"] == "cnn1d"

    def test_tells_every_row_of_every_history_once(self, observed):
        results, noting = observed
        for segment in results.segments:
            told = [event.row for event in noting.of(EpochDone) if event.segment.id == segment.id]
            assert [dict(row) for row in told] == [dict(row) for row in segment.history]
        assert not any(event.earlier for event in noting.of(SegmentEvent))

    def test_tells_what_probes_measured_and_where(self, observed):
        results, noting = observed
        for segment in results.segments:
            told = {(event.probe, event.moment): event for event in noting.of(Measured) if event.segment.id == segment.id}
            assert {moment: dict(told["delta", moment].values) for moment in segment.probes.get("delta", {})} == segment.probes.get(
                "delta", {}
            )
            assert {moment: event.note for (_, moment), event in told.items() if event.note} == segment.probe_notes.get("delta", {})
        branch = next(event for event in noting.of(Measured) if event.segment.kind == "branch" and event.moment == "end")
        assert branch.step == 3 * STEPS_PER_EPOCH

    def test_tells_the_result_without_what_was_told_before(self, observed):
        results, noting = observed
        for event in noting.of(SegmentFinished):
            [expected] = [segment.to_json() for segment in results.segments if segment.id == event.segment.id]
            left_out = set(expected) - set(event.result)
            assert left_out == {"history", "probe_details"}
            assert event.to_json()["result"] == json.loads(json.dumps({key: expected[key] for key in event.result}))

    def test_is_the_same_with_and_without(self, observed, config, tmp_path):
        run(config, out=tmp_path / "alone", progress="silent")
        assert bytes_of(tmp_path / "alone") == bytes_of(observed[0].path)

    @pytest.mark.slow
    def test_in_processes_of_its_own_tells_the_same(self, observed, config, tmp_path):
        noting = Noting()
        run(attrs.evolve(config, jobs=2), out=tmp_path / "run", progress="silent", observers=[noting])
        assert rows(noting) == rows(observed[1])
        assert {type(event) for event in noting.told} == {type(event) for event in observed[1].told}


class TestARunThatIsGoneOnWith:
    def test_is_told_from_where_each_segment_goes_on(self, small, tmp_path, monkeypatch):
        monkeypatch.setattr("anarch_core.segment.saving.SAVE_EVERY", 1e6)
        config = small(epochs=6, switch="at:1", control="none", probe="delta")
        first, second, third = Noting(), Noting(), Noting()
        with pytest.raises(InterruptedRunError):
            run(config, out=tmp_path, progress=Stopping(epoch=4), observers=[first])
        assert first.of(RunFinished)[0].status == "stopped"
        results = resume(tmp_path, progress="silent", observers=[second])
        assert second.of(RunBegun)[0].resumed
        assert first.of(RunBegun)[0].run == second.of(RunBegun)[0].run
        started = second.of(SegmentStarted)[0]
        assert (started.segment.kind, started.iteration, started.epoch, started.earlier) == ("trunk", 4 * STEPS_PER_EPOCH, 4, False)
        assert rows(second, earlier=True) == rows(first)
        everything = Counter((segment.id, row["epoch"]) for segment in results.segments for row in segment.history)
        assert rows(second) == everything
        run(config, out=tmp_path, progress="silent", observers=[third])
        assert rows(third, earlier=True) == everything
        assert all(event.earlier for event in third.of(SegmentEvent))
        assert len(third.of(SegmentFinished)) == len(results.segments)
        measured = [[(event.segment.id, event.moment, event.values) for event in some.of(Measured)] for some in (second, third)]
        assert sorted(measured[0], key=str) == sorted(measured[1], key=str)

    def test_a_run_that_is_asked_for_more_is_told_whole_and_what_is_new_beside_it(self, small, tmp_path):
        first, second = Noting(), Noting()
        run(small(switch="at:1", control="none"), out=tmp_path, progress="silent", observers=[first])
        config = small(switch="at:1,2", control="none", probe="delta", seeds="0,1")
        results = run(config, out=tmp_path, progress="silent", observers=[second])
        assert second.of(RunBegun)[0].run == first.of(RunBegun)[0].run
        assert rows(second) == Counter((segment.id, row["epoch"]) for segment in results.segments for row in segment.history)
        assert rows(second, earlier=True) == rows(first)
        old, new = ({event.segment.id for event in second.of(SegmentStarted) if event.earlier is earlier} for earlier in (True, False))
        assert (len(old), len(new)) == (2, 4)
        told = {(event.segment.id, event.moment): dict(event.values) for event in second.of(Measured) if event.values}
        assert told == {
            (segment.id, moment): values for segment in results.segments for moment, values in segment.probes.get("delta", {}).items()
        }
        assert len(second.of(SegmentFinished)) == len(results.segments)

    def test_a_switch_found_by_the_schedule_is_told_and_grows_the_tree(self, small, tmp_path):
        noting = Noting()
        config = small(epochs=20, switch="plateau:1", control="none", lr=1e-6)
        run(config, out=tmp_path, progress="silent", observers=[noting])
        found, planned = noting.of(SwitchFound), noting.of(SegmentsPlanned)
        assert found
        assert len(planned) == 1 + len(found)
        assert [len(event.segments) for event in planned] == [1 + number for number in range(len(planned))]


class TestWhatGoesWrong:
    def test_segments_that_fail_are_told(self, small, tmp_path, monkeypatch):
        def failing(*_):
            raise ZeroDivisionError("no luck")

        monkeypatch.setattr("anarch_core.segment.execution.training_from", failing)
        noting = Noting()
        run(small(switch="at:1", control="none"), out=tmp_path, progress="silent", observers=[noting])
        assert [event.segment.kind for event in noting.of(SegmentFailed)] == ["trunk"]
        assert [event.segment.kind for event in noting.of(SegmentSkipped)] == ["branch"]
        over = noting.told[-1]
        assert (over.status, len(over.failed), len(over.skipped), over.finished) == ("failed", 1, 1, ())

    def test_warnings_are_told(self, observed, config, tmp_path):
        noting = Noting()
        run(config, out=tmp_path / "run", progress="silent")
        next(tmp_path.glob("run/segments/*/final.safetensors")).write_bytes(b"?")
        run(config, out=tmp_path / "run", progress="silent", observers=[noting])
        assert any("is made again" in event.text for event in noting.of(Warned))

    def test_what_a_probe_leaves_out_is_said_once(self, small, tmp_path, monkeypatch):
        left_out = Measurement(scalars={"rms_inside": None}, omitted="no layer is a convolution")
        monkeypatch.setattr("anarch_plugins.probes.filters.probe.FiltersProbe.measure", lambda self, context: left_out)
        telling, noting, note = Stopping(), Noting(), "measured nothing: no layer is a convolution"
        results = run(small(switch="at:1", probe="filters"), out=tmp_path, progress=telling, observers=[noting])
        assert [text for text in telling.said if "filters" in text] == [f"probe filters {note}"]
        assert not noting.of(Warned)
        assert {event.note for event in noting.of(Measured)} == {note}
        assert all(set(segment.probe_notes["filters"].values()) == {note} for segment in results.segments)

    def test_an_error_of_the_run_itself_ends_the_story(self, config, tmp_path, monkeypatch):
        noting = Noting()
        monkeypatch.setattr("anarch_core.running.walk.Walk.walk", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(config, out=tmp_path / "run", progress="silent", observers=[noting])
        assert noting.told[-1].status == "broken"

    def test_an_observer_that_raises_hangs_or_leaves_changes_nothing(self, observed, config, tmp_path, monkeypatch):
        monkeypatch.setattr(audience, "PATIENCE", 0.2)

        class Raising(Noting):
            def observe(self, event):
                if isinstance(event, EpochDone):
                    raise SystemExit(7)

        class Hanging(Noting):
            def observe(self, event):
                time.sleep(20)

        telling, noting, began = Stopping(), Noting(), time.monotonic()
        results = run(config, out=tmp_path / "run", progress=telling, observers=[Raising(), Hanging(), noting])
        assert results.status == "finished"
        assert bytes_of(tmp_path / "run") == bytes_of(observed[0].path)
        assert rows(noting) == rows(observed[1])
        assert time.monotonic() - began < 15
        said = [text for text in telling.said if "observer" in text.lower() or "warning" in text]
        assert len(said) == 2, said
        assert "Raising is left out from here on, and the run goes on: SystemExit: 7" in said[0]
        assert "Hanging did not finish with the run and is left behind" in said[1]

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"observe": "jsnol"}, UnknownComponentError, "unknown observer 'jsnol'; did you mean 'jsonl'"),
            ({"observe": "delta"}, UnknownComponentError, "'delta' names a probe, use --probe delta"),
            ({"probe": "jsonl"}, UnknownComponentError, "'jsonl' names an observer, use --observe jsonl"),
            ({"observe": "jsonl:events.txt"}, OptionError, "ends with .jsonl: events.txt"),
            ({"observe": "jsonl", "options": {"jsonl": {"folder": "x"}}}, OptionError, "folder"),
        ],
    )
    def test_is_refused_before_the_start(self, small, settings, error, message):
        with pytest.raises(error, match=message):
            small(**settings)

    def test_a_package_that_is_missing_is_said_before_the_start_and_nothing_is_left(self, small, tmp_path, monkeypatch):
        def missing(_):
            msg = "pip install 'anarch[tensorboard]'"
            raise MissingDependencyError(msg)

        monkeypatch.setattr("anarch_plugins.observers.tensorboard.observer._writer_class", lambda: missing(None))
        with pytest.raises(MissingDependencyError, match="pip install"):
            run(small(observe="tensorboard"), out=tmp_path / "run", progress="silent")
        assert list(tmp_path.iterdir()) == []


class TestWhoWatchesIsNoPartOfARun:
    def test_neither_its_name_nor_its_segments_depend_on_it(self, small):
        plain, watched = small(), small(observe="jsonl:elsewhere.jsonl")
        assert watched.options["jsonl"]["path"] == "elsewhere.jsonl"
        assert plain.digest == watched.digest

    def test_another_may_go_on_and_is_remembered(self, small, tmp_path):
        run(small(switch="at:1", control="none"), out=tmp_path, progress="silent")
        run(small(switch="at:1", control="none", observe="jsonl:a.jsonl"), out=tmp_path, progress="silent")
        resume(tmp_path, progress="silent")
        lines = [json.loads(line)["event"] for line in (tmp_path / "a.jsonl").read_text().splitlines()]
        assert lines.count("run_begun") == lines.count("run_finished") == 2
        assert lines.count("segment_finished") == len(Results.read(tmp_path).segments)


def test_records_of_observers_are_of_their_kind():
    info = ObserverInfo(name="x", summary="X.", target="m:X")
    assert (info.kind, info.namespace) == ("observer", "component")
