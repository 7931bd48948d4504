"""Runs whose layers are relaxed one after another."""

from __future__ import annotations

import pytest

from anarch_core.checkpoint.network import load
from anarch_core.errors import SurgeryError
from anarch_core.experiment.results import Results
from anarch_core.layers.base import relaxed_layers
from anarch_core.running.runner import run

FIRST, BOTH, BACK = "tiled:2[features.0]", "tiled:2[features.0]>tiled:2", "tiled:2[features.0]>tiled:2>conv[features.2]"


@pytest.fixture(scope="module")
def finished(small, tmp_path_factory) -> Results:
    path = "tiled:2[features.0]@1,tiled:2@2,conv[features.2]@3"
    config = small(relax=(), path=path, probe="delta", optimizer_state="carry", options={"sgd": {"momentum": 0.9}})
    return run(config, out=tmp_path_factory.mktemp("run") / "layers", progress="silent")


def branch(results: Results, relaxation: str, kind: str = "branch"):
    [found] = [segment for segment in results.segments if (segment.kind, segment.relaxation) == (kind, relaxation)]
    return found


def layers(results: Results, segment) -> dict[str, str]:
    network = load(results.path / "segments" / segment.id / "final.safetensors")
    return {path: layer.relaxation for path, layer in relaxed_layers(network).items()}


def test_each_stage_relaxes_its_layers_and_leaves_the_others(finished):
    every = dict.fromkeys(("features.0", "features.2", "features.4"), "tiled")
    assert layers(finished, branch(finished, FIRST)) == {"features.0": "tiled"}
    assert layers(finished, branch(finished, BOTH)) == every
    assert layers(finished, branch(finished, BACK)) == {"features.0": "tiled", "features.4": "tiled"}


def test_every_stage_is_exact_for_the_layers_that_it_replaces(finished):
    first, both = (branch(finished, name).exactness for name in (FIRST, BOTH))
    assert list(first.layers) == ["features.0"]
    assert list(both.layers) == ["features.2", "features.4"]
    assert first.exact
    assert both.exact


def test_the_optimizer_remembers_all_of_a_layer_that_stays(finished):
    states = branch(finished, BOTH).optimizer_state
    assert set(states.values()) == {"carried"}
    before, after = branch(finished, FIRST), branch(finished, BOTH)
    assert before.final.test_loss == pytest.approx(after.start.test_loss, rel=1e-5)


def test_the_drift_is_that_of_the_layers_that_are_relaxed(finished):
    drifts = {name: branch(finished, name).probe_details["delta"]["end"]["layers"] for name in (FIRST, BOTH, BACK)}
    assert [list(layers) for layers in drifts.values()] == [
        ["features.0"],
        ["features.0", "features.2", "features.4"],
        ["features.0", "features.4"],
    ]


def test_the_scratch_control_is_the_last_network_with_weights_drawn_anew(finished):
    control = branch(finished, "tiled:2>conv[features.2]", kind="scratch")
    assert layers(finished, control) == {"features.0": "tiled", "features.4": "tiled"}
    assert control.parameters == branch(finished, BACK).parameters


def test_a_pattern_of_no_layer_is_refused_before_anything_is_trained(small, tmp_path):
    with pytest.raises(SurgeryError, match=r"layer pattern 'conv1' matches none of features.0, features.2, features.4"):
        run(small(relax=(), path="lcn[conv1]@1,lcn@2"), out=tmp_path / "run", progress="silent")
    assert not (tmp_path / "run").exists()
