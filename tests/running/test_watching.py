"""The trunk is measured while it is trained, and schedules decide by what is found."""

from __future__ import annotations

import json
import math
import textwrap
from pathlib import Path

import attrs
import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError, RunError, UnknownComponentError
from anarch_core.experiment.results import Results
from anarch_core.planning.plan import plan_run
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import ProbeInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.running.progress import Silent
from anarch_core.running.runner import run

BARE = {"relax": (), "control": "none"}


def trunk(results: Results):
    [found] = [segment for segment in results.segments if segment.kind == "trunk"]
    return found


def finals(path: Path) -> dict[str, bytes]:
    return {file.parent.name: file.read_bytes() for file in path.glob("segments/*/final.safetensors")}


def by_epoch(results: Results, column: str) -> dict[float, float | None]:
    return {row["epoch"]: row[column] for row in trunk(results).history if column in row}


@pytest.fixture(scope="module")
def watched(small, tmp_path_factory) -> Results:
    config = small(epochs=5, watch="gradient,weights", watch_every=2, probe="gradient", **BARE)
    return run(config, out=tmp_path_factory.mktemp("run") / "watched", progress="silent")


def test_watched_probes_have_columns_in_the_history_of_the_trunk(watched):
    assert list(by_epoch(watched, "gradient.norm")) == [0, 2, 4]
    assert all(math.isfinite(value) for value in by_epoch(watched, "gradient.norm").values())
    assert by_epoch(watched, "gradient.norm")[0] == trunk(watched).scalars("gradient", "start")["norm"]


def test_being_watched_changes_no_bit(small, tmp_path, watched):
    alone = run(small(epochs=5, **BARE), out=tmp_path / "alone", progress="silent")
    assert finals(tmp_path / "alone") == finals(watched.path)
    assert [row["train_loss"] for row in trunk(alone).history] == [row["train_loss"] for row in trunk(watched).history]


def test_the_norm_of_the_gradient_is_there_for_a_schedule_that_needs_it(small, tmp_path):
    config = small(epochs=4, switch="when:gradient_norm>0", options={"when": {"times": None}}, control="none", branch_epochs=1)
    results = run(config, out=tmp_path / "run", progress="silent")
    assert list(by_epoch(results, "gradient_norm")) == [1, 2, 3, 4]
    assert trunk(results).switches == [4]
    assert finals(tmp_path / "run")[trunk(results).id] == finals_of_trunk(small, tmp_path)
    branch = next(segment for segment in results.segments if segment.kind == "branch")
    assert not any("gradient_norm" in row for row in branch.history)


def finals_of_trunk(small, tmp_path) -> bytes:
    results = run(small(epochs=4, **BARE), out=tmp_path / "alone", progress="silent")
    return finals(tmp_path / "alone")[trunk(results).id]


def test_a_probe_that_the_schedule_looks_at_is_watched(small, tmp_path):
    config = small(epochs=4, switch="when:gradient.norm>0", watch_every=2, control="none", branch_epochs=1)
    assert config.watch == ("gradient",)
    assert config.options["gradient"]["samples"] is None
    results = run(config, out=tmp_path / "run", progress="silent")
    assert trunk(results).switches == [8]
    assert not trunk(results).probes


@pytest.mark.parametrize(
    "condition", ["validation_loss:above:0", "validation_accuracy:above:-1", "train_loss:above:0", "learning_rate:above:0"]
)
def test_it_may_look_at_any_column_of_training_or_validation(small, tmp_path, condition):
    config = small(epochs=2, switch=f"when:{condition}", validation=0.25, control="none", branch_epochs=1)
    assert trunk(run(config, out=tmp_path / "run", progress="silent")).switches == [3]


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        (
            "when:validation_loss rises",
            "'validation_loss', which needs a part of the training set that is held out; add one, as in --validat",
        ),
        ("when:test_loss<1", "'test_loss', which is of the test set, which decides nothing; hold out a part .* and take 'validation_loss'"),
        ("when:train_los<1", "'train_los', which is no column of the history; did you mean 'train_loss'"),
        (
            "when:norm<1",
            "there are epoch, train_loss, train_accuracy, learning_rate, gradient_norm, and PROBE.SCALAR, as in hessian.lambda",
        ),
        ("when:delta.unshared>1", "probe delta cannot be watched: it needs relaxed layers, and the trunk is the constrained network alone"),
    ],
)
def test_a_column_that_there_will_not_be_is_refused_before_anything_is_trained(small, tmp_path, switch, message):
    with pytest.raises(ConfigError, match=message):
        run(small(switch=switch), out=tmp_path / "run", progress="silent")
    assert not (tmp_path / "run").exists()


def test_a_probe_that_there_is_not_is_refused_by_name(small):
    with pytest.raises(ConfigError, match=r"switch 'when:hesian.trace>1' looks at 'hesian.trace': .*did you mean 'hessian'"):
        small(switch="when:hesian.trace>1")
    with pytest.raises(UnknownComponentError, match="hesian"):
        small(watch="hesian")


def test_a_number_that_the_probe_does_not_measure_is_found_before_the_first_step(small, tmp_path):
    results = run(small(switch="when:gradient.size>1"), out=tmp_path / "run", progress="silent")
    [error] = [segment.error for segment in results.failed.values()]
    assert "looks at 'gradient.size', which probe gradient does not measure; it measures gradient.loss, gradient.norm, " in error
    assert not list((tmp_path / "run").glob("segments/*/resume.safetensors"))


def test_a_finished_trunk_is_asked_for_other_switches_by_what_was_watched(small, tmp_path):
    settings = {"epochs": 4, "control": "none", "branch_epochs": 1, "watch": "gradient", "watch_every": 2}
    run(small(switch="at:1", **settings), out=tmp_path / "run", progress="silent")
    telling = Listening()
    grown = run(small(switch="when:gradient.norm>0", **settings), out=tmp_path / "run", progress=telling)
    alone = run(small(switch="when:gradient.norm>0", **settings), out=tmp_path / "alone", progress="silent")
    assert trunk(grown).switches == trunk(alone).switches == [8]
    assert finals(tmp_path / "alone").items() <= finals(tmp_path / "run").items()


@pytest.mark.parametrize(
    ("settings", "differing"),
    [
        ({"switch": "when:gradient_norm<0"}, r"watch \(\('gradient',\) there, \('gradient', 'gradient_norm'\) here\)"),
        ({"switch": "when:weights.rms_local<0"}, r"watch \(\('gradient',\) there, \('gradient', 'weights'\) here\)"),
        ({"watch_every": 1}, r"watch_every \(2 there, 1 here\)"),
        ({"options": {"gradient": {"samples": 20}}}, r"samples of gradient \(None there, 20 here\)"),
    ],
)
def test_a_trunk_that_was_not_watched_so_is_of_another_experiment(small, tmp_path, settings, differing):
    before = {"epochs": 2, "control": "none", "branch_epochs": 1, "watch": "gradient", "watch_every": 2, "switch": "at:1"}
    run(small(**before), out=tmp_path / "run", progress="silent")
    recorded = (tmp_path / "run" / "config.toml").read_bytes()
    with pytest.raises(RunError, match=f"holds another experiment, which differs in {differing}; choose another --out"):
        run(small(**{**before, **settings}), out=tmp_path / "run", progress="silent")
    assert (tmp_path / "run" / "config.toml").read_bytes() == recorded


def test_how_often_without_what_is_refused(small):
    with pytest.raises(ConfigError, match="--watch-every changes nothing where no probe is watched; add --watch NAME"):
        small(watch_every=2)
    with pytest.raises(ConfigError, match="watch_every 4 is longer than the trunk, which has 3 epochs: nothing would be seen of it"):
        small(watch="gradient", watch_every=4)


def test_a_plan_says_what_is_watched_and_what_memory_that_takes(small, mnist1d):
    plan = plan_run(small(watch="gradient,gradient_norm", watch_every=3), timed=False)
    assert [text for label, text in plan.facts() if label == "watch"] == [
        "gradient on the trunk, after every 3 epochs",
        "gradient_norm on the trunk, after every epoch",
    ]
    constrained, relaxed = (network.needed_bytes for network in plan.networks)
    assert constrained["watched gradient"] > 0
    assert "watched gradient" not in relaxed


PROBES = """
from anarch_core.errors import ProbeError
from anarch_core.probe import AbstractProbe, Measurement

class Tired(AbstractProbe):
    calls = 0

    def measure(self, context):
        Tired.calls += 1
        if Tired.calls == 3:
            raise ProbeError("no luck")
        return Measurement(scalars={"answer": float(Tired.calls), "nothing": None})

class Broken(AbstractProbe):
    def measure(self, context):
        raise ProbeError("never")
"""


@pytest.fixture
def with_probes(tmp_path, monkeypatch) -> Registry:
    (tmp_path / "tired_probes.py").write_text(textwrap.dedent(PROBES))
    monkeypatch.syspath_prepend(tmp_path)
    infos = tuple(ProbeInfo(name=name.lower(), summary="Odd.", target=f"tired_probes:{name}") for name in ("Tired", "Broken"))
    plugin = PluginRecord(name="odd", module="odd", distribution="odd", version="1", status=Status.LOADED, error="", components=infos)
    return Registry((*get_registry().plugins, plugin))


class Listening(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_probe_that_fails_on_the_way_leaves_the_number_out_and_the_trunk_goes_on(small, tmp_path, with_probes):
    plain = small(epochs=4, **BARE)
    config = RunConfig(
        **{field.name: getattr(plain, field.name) for field in attrs.fields(RunConfig) if field.name not in ("switch", "relax", "watch")},
        switch="when:tired.answer > 4",
        relax="lcn",
    )
    telling = Listening()
    results = run(attrs.evolve(config, options={"cnn1d": {"channels": 3}}), out=tmp_path / "run", registry=with_probes, progress=telling)
    # measured before training and after each epoch; rehearsals count as well
    answers = by_epoch(results, "tired.answer")
    assert list(answers) == [0, 1, 2, 3, 4]
    assert results.status == "finished"
    if None in answers.values():
        assert any("probe tired after epoch" in text and "failed: " in text for text in telling.said)


def test_a_probe_that_the_schedule_needs_and_that_never_works_stops_the_run_before_the_first_step(small, tmp_path, with_probes):
    plain = small(epochs=4, **BARE)
    config = attrs.evolve(plain, switch="when:broken.answer > 4", relax="lcn", options={"cnn1d": {"channels": 3}})
    results = run(config, out=tmp_path / "run", registry=with_probes, progress="silent")
    assert results.status == "failed"
    assert "never" in next(iter(results.failed.values())).error


def test_a_schedule_that_never_switches_says_so(small, tmp_path):
    telling = Listening()
    run(small(epochs=2, switch="when:train_loss<0", control="none"), out=tmp_path / "run", progress=telling)
    assert "trunk, seed 0: the schedule 'when:train_loss<0' found no moment to switch at; nothing branches off" in telling.said


def test_what_was_watched_is_written_down(watched):
    recorded = (watched.path / "config.toml").read_text()
    assert 'watch = [\n    "gradient",\n    "weights",\n]\nwatch_every = 2' in recorded
    rows = [json.loads(line) for line in (watched.path / "segments" / trunk(watched).id / "history.jsonl").read_text().splitlines()]
    assert rows == trunk(watched).history
