"""Whether networks are trained as chains is decided once for a run, and written down."""

from __future__ import annotations

import json
from types import SimpleNamespace

import attrs
import pytest
import torch

from anarch_core.config.run_config import RunConfig
from anarch_core.planning import chaining
from anarch_core.running.runner import resume, run
from anarch_core.segment.execution import Execution
from anarch_core.workers.in_process import InProcess

CONFIG = RunConfig(
    model="cnn1d", data="mnist1d", train_limit=200, epochs=2, branch_epochs=1, switch="at:1", relax=("efcn", "tiled"), probe=(), jobs=1
)


@pytest.fixture
def trained(monkeypatch):
    """What each segment was trained as: by its network, whether in chains, and how many there were."""
    found: dict[str, tuple[bool, int]] = {}
    finish = Execution._finish

    def watched(self, training, *rest):
        found[self.segment.network] = training.chained, training.chains
        return finish(self, training, *rest)

    monkeypatch.setattr(Execution, "_finish", watched)
    return found


def test_the_decision_is_part_of_the_record_of_a_run(tmp_path, trained, monkeypatch):
    asked = []

    def pays(context, model):
        asked.append(type(model.features[0]).__name__)
        return asked[-1] != "FullyConnectedLayer"

    monkeypatch.setattr(chaining, "_pays", pays)
    run(CONFIG, out=tmp_path / "run", progress="silent")
    assert sorted(asked) == ["Conv1d", "FullyConnectedLayer", "TiledLayer"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["chained"] == {"conv": True, "efcn": False, "tiled": True}
    assert {network: taken for network, (taken, _) in trained.items()} == {"conv": True, "efcn": False, "tiled": True}
    assert trained["conv"][1]
    assert trained["tiled"][1]
    assert not trained["efcn"][1]


def test_a_run_that_is_gone_on_with_does_not_ask_again(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(chaining, "_pays", lambda context, model: False)
    run(CONFIG, out=tmp_path / "run", progress="silent")
    for file in tmp_path.glob("run/segments/*/result.json"):
        file.unlink()
    trained.clear()
    monkeypatch.setattr(chaining, "_pays", lambda context, model: pytest.fail("asked again"))
    resume(tmp_path / "run", progress="silent")
    assert set(trained.values()) == {(False, 0)}


def test_only_what_a_directory_did_not_have_is_asked_when_it_grows(tmp_path, trained, monkeypatch):

    monkeypatch.setattr(chaining, "_pays", lambda context, model: False)
    run(attrs.evolve(CONFIG, relax=("efcn",)), out=tmp_path / "run", progress="silent")
    asked = []
    monkeypatch.setattr(chaining, "_pays", lambda context, model: asked.append(model) or True)
    run(CONFIG, out=tmp_path / "run", progress="silent")
    assert [type(model.features[0]).__name__ for model in asked] == ["TiledLayer"]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["chained"] == {"conv": False, "efcn": False, "tiled": True}


@pytest.mark.parametrize(("seconds", "taken"), [((1.0, 0.9), True), ((1.0, 1.2), True), ((1.0, 1.4), False)])
def test_it_takes_a_clear_measurement_against_what_sizes_say(tmp_path, trained, monkeypatch, seconds, taken):
    clock, ordinary, chained = [0.0], *seconds

    class Steps(chaining.Training):
        def advance(self, until, *rest):
            clock[0] += chained if self.chained else ordinary
            super().advance(until, *rest)

    monkeypatch.setattr(chaining, "Training", Steps)
    monkeypatch.setattr(chaining.time, "process_time", lambda: clock[0])
    run(CONFIG, out=tmp_path / "run", progress="silent")
    assert {each for each, _ in trained.values()} == {taken}


def test_trying_leaves_the_random_state_and_the_network(tmp_path):
    torch.manual_seed(7)
    expected = torch.get_rng_state()
    run(CONFIG, out=tmp_path / "run", progress="silent")
    assert torch.equal(torch.get_rng_state(), expected)


@pytest.mark.parametrize(("raises", "taken"), [((), True), ((True,), False), ((False, True), True)])
def test_what_cannot_be_trained_in_chains_is_not_and_what_cannot_be_trained_is_told_later(monkeypatch, raises, taken):
    class Steps:
        iteration, chains = 0, 0

        def __init__(self, chained):
            self.chained = chained

        def advance(self, until):
            if self.chained in raises:
                msg = "it cannot be"
                raise RuntimeError(msg)

    monkeypatch.setattr(chaining, "tried", lambda context, model, *, chained: Steps(chained))
    context = SimpleNamespace(config=SimpleNamespace(precision="float32", threads=1))
    assert chaining._pays(context, torch.nn.Linear(1, 1)) == taken


def test_what_processes_hold_together_is_no_chain_and_what_each_has_is_as_it_was(tmp_path):
    """No process has the whole of a relaxed network to try; the trunk is the same in all of them, however many they are."""
    networks = [
        SimpleNamespace(architecture=SimpleNamespace(parts=parts, segments={name}), parameters=2**40)
        for name, parts in (("conv", ()), ("efcn", (1,)))
    ]
    segments = [SimpleNamespace(id=name, network=name) for name in ("conv", "efcn")]
    context = SimpleNamespace(config=SimpleNamespace(shards=2), device=torch.device("cpu"))
    assert chaining.chained(context, networks, segments, {}) == {"efcn": False}
    assert chaining.chained(context, networks, segments, {"conv": True, "efcn": True}) == {"conv": True, "efcn": False}


def test_whoever_trains_a_segment_is_told_what_was_decided(tmp_path, monkeypatch):
    told = {}
    submit = InProcess.submit

    def watched(self, job):
        told[job.segment.network] = job.chained
        submit(self, job)

    monkeypatch.setattr(InProcess, "submit", watched)
    monkeypatch.setattr(chaining, "_pays", lambda context, model: type(model.features[0]).__name__ != "FullyConnectedLayer")
    run(CONFIG, out=tmp_path / "run", progress="silent")
    assert told == {"conv": True, "efcn": False, "tiled": True}
