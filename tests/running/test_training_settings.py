"""What a run makes of warm-ups, clipping, averages of weights and early stopping, in every segment, and after every stop."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import attrs
import pytest
import torch

from anarch_core.checkpoint import network as checkpoint
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError
from anarch_core.experiment.results import Results
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.running.progress import Silent
from anarch_core.running.runner import resume, run
from anarch_core.segment.saving import SaveClock
from anarch_core.segment.stopping import InterruptedRunError

SETTINGS = {
    "lr_schedule": "warmup:5it+cosine",
    "branch_lr_schedule": "warmup:1",
    "clip_norm": 0.5,
    "validation": 8,
    "options": {"sgd": {"momentum": 0.9}},
    "optimizer_state": "carry",
    "probe": "delta",
}


def files(path: Path) -> dict[str, bytes]:
    """Every file that holds numbers."""
    found = [*path.glob("segments/**/*.safetensors"), *path.glob("segments/*/history.jsonl")]
    return {str(file.relative_to(path)): file.read_bytes() for file in found}


def found(results: Results, kind: str, switch: float | None = None) -> SegmentResult:
    [one] = [each for each in results.segments if each.kind == kind and (switch is None or each.switch_epoch == switch)]
    return one


class Stopping(Silent):
    """Sends a signal after every sixth time that steps are told of."""

    def __init__(self) -> None:
        self.told = 0

    def trained(self, segment: object, iteration: int, row: object) -> None:
        self.told += 1
        if self.told % 6 == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def run_with_stops(config: RunConfig, out: Path) -> int:
    """Run to the end, as often as it takes."""
    progress, stops = Stopping(), 0
    while True:
        try:
            run(config, out=out, progress=progress)
        except InterruptedRunError:
            stops += 1
        else:
            return stops


@pytest.mark.parametrize("settings", [{"average": "ema:0.9"}, {"average": "swa:0.25", "stop_early": "validation_accuracy:1"}], ids=str)
def test_a_run_that_is_stopped_anywhere_ends_in_the_same_bytes(small, tmp_path, monkeypatch, settings):
    config = small(**SETTINGS, **settings, switch="at:2", control="none")
    whole = run(config, out=tmp_path / "whole", progress="silent")
    monkeypatch.setattr(SaveClock, "due", lambda self, every=None: True)
    assert run_with_stops(config, tmp_path / "stopped") >= 3
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")
    assert any("average" in name for name in files(tmp_path / "whole"))
    for one, other in zip(Results.read(tmp_path / "stopped").segments, whole.segments, strict=True):
        assert attrs.evolve(one, seconds=0) == attrs.evolve(other, seconds=0)


@pytest.fixture(scope="module")
def plain(small, tmp_path_factory) -> Results:
    return run(small(probe="weights"), out=tmp_path_factory.mktemp("plain"), progress="silent")


@pytest.fixture(scope="module")
def averaged(small, tmp_path_factory) -> Results:
    return run(small(probe="weights", average="swa:0.5"), out=tmp_path_factory.mktemp("averaged"), progress="silent")


class TestAnAverage:
    def test_leaves_what_is_trained_as_it_is(self, plain, averaged):
        for one, other in zip(plain.segments, averaged.segments, strict=True):
            assert one.final == other.final
            assert one.probes["weights"]["end"] == other.probes["weights"]["end"]

    def test_is_a_network_of_every_segment(self, averaged):
        for segment in averaged.segments:
            folder = averaged.path / "segments" / segment.id
            model = checkpoint.load(folder / "average.safetensors")
            final = checkpoint.load(folder / "final.safetensors")
            assert not torch.equal(next(model.parameters()), next(final.parameters()))
            assert segment.score("average", "test_loss") != segment.final.test_loss
            assert segment.scalars("weights", "average").keys() == segment.scalars("weights", "end").keys()
            assert (folder / "probes" / "weights-average.safetensors").exists()

    def test_is_the_mean_over_the_ends_of_epochs(self, small, averaged, tmp_path):
        """Controls that leave the trunk there keep what the mean is taken of."""
        run(small(relax=(), control="continued", switch="at:2,3", epochs=3), out=tmp_path / "run", progress="silent")
        [trunk] = tmp_path.glob("run/segments/*/snapshots")
        networks = [checkpoint.load(trunk / f"{iteration}.safetensors").state_dict() for iteration in (8, 12)]
        found = checkpoint.load(averaged.path / "segments" / averaged.segments[0].id / "average.safetensors").state_dict()
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, (networks[0][name] + networks[1][name]) / 2)

    def test_is_noted_with_what_is_left_and_made_again_when_damaged(self, averaged):
        segment = averaged.segments[-1]
        file = averaged.path / "segments" / segment.id / "average.safetensors"
        before = file.read_bytes()
        file.write_bytes(before[:-1])
        again = resume(averaged.path, progress="silent")
        assert file.read_bytes() == before
        assert attrs.evolve(again.segments[-1], seconds=0) == attrs.evolve(segment, seconds=0)

    def test_is_measured_by_a_probe_that_is_asked_for_later(self, small, averaged, tmp_path):
        run(small(average="swa:0.5"), out=tmp_path / "run", progress="silent")
        later = run(small(probe="weights", average="swa:0.5"), out=tmp_path / "run", progress="silent")
        assert [segment.probes for segment in later.segments] == [segment.probes for segment in averaged.segments]
        assert files(later.path) == files(averaged.path)

    def test_stands_in_the_summary(self, plain, averaged):
        assert "average" in averaged.table().content.headings
        assert "average" not in plain.table().content.headings

    def test_of_no_moment_is_none(self, small, tmp_path):
        config = small(average="swa:0.9", stop_early="train_accuracy:1", lr=1e-12, relax=(), control="none")
        [trunk] = run(config, out=tmp_path / "run", progress="silent").segments
        assert trunk.stopped_early
        assert trunk.average is None
        assert not list(tmp_path.glob("run/segments/*/average.safetensors"))


@pytest.fixture(scope="module")
def stopped(small, tmp_path_factory) -> Results:
    config = small(
        validation=8,
        stop_early="validation_accuracy:1",
        lr=1e-12,
        epochs=5,
        switch="at:1,2,3,9it",
        path=["lcn@1,efcn@4", "lcn@4,efcn@5"],
        control="continued",
    )
    return run(config, out=tmp_path_factory.mktemp("stopped"), progress="silent")


class TestStoppingEarly:
    def test_ends_the_trunk_and_says_why(self, stopped):
        trunk = found(stopped, "trunk")
        assert trunk.ended.startswith("stopped early: validation_accuracy has not improved for an epoch (best ")
        assert trunk.ended.endswith(" in epoch 1)")
        assert [row["epoch"] for row in trunk.history] == [0, 1, 2]
        assert trunk.history[-1]["test_loss"] == trunk.final.test_loss
        assert trunk.epochs == 5

    def test_what_would_have_left_later_is_skipped_with_the_reason(self, stopped):
        trunk = found(stopped, "trunk")
        assert stopped.status == "finished"
        assert not stopped.failed
        [stage] = [segment for segment in stopped.segments if segment.relaxation == "lcn"]
        assert stage.stopped_early
        assert {skipped.error for skipped in stopped.skipped.values()} == {
            f"trunk, seed 0 {trunk.ended}",
            f"lcn at 1ep, seed 0 {stage.ended}",
            "lcn at 4ep, seed 0 did not get there",
        }
        at = {segment.switch_epoch for segment in stopped.segments}
        assert at == {None, 1, 2}
        assert {skipped.title for skipped in stopped.skipped.values()} > {"efcn at 3ep, seed 0", "continued at 9it, seed 0"}

    def test_is_not_trained_again(self, stopped):
        before = {file: file.stat().st_mtime_ns for file in stopped.path.glob("segments/*/*")}
        again = resume(stopped.path, progress="silent")
        assert {file: file.stat().st_mtime_ns for file in stopped.path.glob("segments/*/*")} == before
        assert again.skipped == stopped.skipped

    def test_every_segment_says_how_it_ended(self, stopped, plain):
        assert {segment.ended for segment in plain.segments} == {"epochs"}
        assert all(segment.ended == "epochs" or segment.stopped_early for segment in stopped.segments)
        assert Results.read(stopped.path).segments[0].ended == stopped.segments[0].ended

    def test_results_of_earlier_versions_do_not_say(self, plain):
        table = plain.segments[0].to_json()
        del table["ended"], table["average"]
        assert SegmentResult.from_json(table, plain.path) == plain.segments[0]
        diverged = {**table, "diverged_epoch": 2}
        assert SegmentResult.from_json(diverged, plain.path).ended == "diverged"

    def test_its_progress_comes_to_the_end(self, small, tmp_path, capsys):
        config = small(validation=8, stop_early="validation_accuracy:1", lr=1e-12, epochs=5, switch="at:1,4", control="none")
        run(config, out=tmp_path / "run", progress="lines")
        lines = capsys.readouterr().err.splitlines()
        [trunk] = [line for line in lines if line.startswith("[1/3] trunk")]
        assert "; stopped early: validation_accuracy has not improved for an epoch" in trunk
        assert any("] efcn at 4ep, seed 0: skipped: trunk, seed 0 stopped early: " in line for line in lines)
        assert lines[-1].startswith("[3/3] ")


def test_a_score_that_the_objective_does_not_give_is_refused_before_the_run(small, tmp_path):
    with pytest.raises(ConfigError, match=r"^stop_early: 'validation_f1' is not known of an epoch; take one of validation_loss"):
        run(small(stop_early="validation_f1:3", validation=8), out=tmp_path / "run", progress="silent")
    assert not (tmp_path / "run").exists()


def test_controls_and_stages_have_the_branch_s_settings(small, tmp_path):
    config = small(**SETTINGS, average="ema:0.5", branch_epochs=2, path=["lcn@1,efcn@3"], relax="efcn")
    results = run(config, out=tmp_path / "run", progress="silent")
    assert {segment.kind for segment in results.segments} == {"trunk", "branch", "continued", "scratch"}
    for segment in results.segments:
        settings = json.loads((results.path / "segments" / segment.id / "segment.json").read_text())["settings"]
        assert settings["clip_norm"] == 0.5
        assert settings["average"] == {"kind": "ema", "number": 0.5}
        assert settings["learning_rate"]["warmup"] == ("5it" if segment.kind == "trunk" else "1ep")
        assert segment.average is not None
        rates = [row["learning_rate"] for row in segment.history[1:]]
        assert segment.kind == "trunk" or rates[-1] == 0.01
