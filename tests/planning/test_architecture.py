"""The networks of paths that relax layer by layer, before anything is trained."""

from __future__ import annotations

import re

import attrs
import pytest
import torch

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import SurgeryError
from anarch_core.models import build_model
from anarch_core.planning.plan import RunPlan, plan_run
from anarch_core.relaxation.verbs import relax

pytestmark = pytest.mark.usefixtures("mnist1d")

CONFIG = RunConfig(epochs=3, branch_epochs=2, train_limit=50, batch_size=10, device="cpu", jobs=1)


def planned(*paths: str, timed: bool = False) -> RunPlan:
    return plan_run(attrs.evolve(CONFIG, path=paths, control="continued,scratch"), timed=timed)


def layers(plan: RunPlan) -> dict[str, list[str]]:
    reports = {network.footprint.name: network.footprint.report for network in plan.networks}
    return {name: [layer.path for layer in report.layers] if report else [] for name, report in reports.items()}


def test_each_network_on_the_way_is_planned_once():
    assert layers(planned("lcn[features.0]@1,lcn@2", "lcn[features.0]@1,efcn[features.2]@2,conv@3")) == {
        "constrained": [],
        "lcn": ["features.0", "features.2", "features.4"],
        "lcn[features.0]": ["features.0"],
        "lcn[features.0] + efcn[features.2]": ["features.0", "features.2"],
    }


def test_a_layer_is_counted_for_what_it_has_become():
    plan = planned("lcn[features.0]@1,efcn@2")
    direct = planned("efcn@2")
    sizes = [{network.footprint.name: network.footprint.parameters for network in each.networks} for each in (plan, direct)]
    assert sizes[0]["efcn"] == sizes[1]["efcn"]
    assert plan.refusal is None


def test_a_projection_of_some_layers_leaves_the_others():
    found = layers(planned("lcn@1,conv[features.0]@2"))
    assert found["lcn[features.2,features.4]"] == ["features.2", "features.4"]
    assert list(layers(planned("lcn[features.0]@1,conv[features.*]@2"))) == ["constrained", "lcn[features.0]"]


def test_every_network_is_timed_as_it_will_be_trained():
    plan = planned("lcn[features.0]@1,tiled:2[features.2]@2,conv[features.0]@3", timed=True)
    assert plan.seconds is not None
    assert sum(network.segments for network in plan.networks) == len(plan.segments)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("lcn[features.9]@1,lcn@2", "lcn of features.9: layer pattern 'features.9' matches none of features.0, features.2, features.4"),
        ("lcn[features.0]@1,conv[features.2]@2", "conv of features.2: layer pattern 'features.2' matches none of features.0"),
        ("lcn[features.*]@1,lcn@2", "lcn of * changes nothing: all of these layers are lcn by then; name others, or leave the stage out"),
        (
            "lcn@1,ungroup@2",
            "ungroup of * changes nothing: nothing to relax in features.0, features.2, features.4: it has one group; name others",
        ),
    ],
)
def test_what_names_no_layer_or_changes_nothing_is_refused(path, message):
    with pytest.raises(SurgeryError, match=re.escape(message)):
        planned(path)


def test_a_layer_that_cannot_go_there_is_named_before_anything_is_trained():
    refusal = planned("efcn[features.0]@1,lcn@2").refusal
    assert refusal.startswith("features.0 cannot be relaxed: it is a layer of efcn, and efcn does not lie inside lcn")
    assert refusal.endswith("as in --path '...,lcn[!features.0]@...'")


def test_layers_with_nothing_to_relax_are_no_obstacle_and_told_of_in_the_plan():
    plan = plan_run(attrs.evolve(CONFIG, model="separable", relax=("ungroup",), switch="at:1", control="none"), timed=False)
    (report,) = [network.footprint.report for network in plan.networks if network.footprint.report]
    assert plan.refusal is None
    assert [layer.path for layer in report.layers] == [f"features.blocks.{block}.depthwise" for block in range(3)]
    assert set(report.idle.values()) == {"it has one group"}
    nothing = plan_run(attrs.evolve(CONFIG, relax=("ungroup",), switch="at:1", control="none"), timed=False).refusal
    assert nothing == "ungroup finds no layer to relax in cnn1d (nothing to relax in features.0, features.2, features.4: it has one group)"


@pytest.mark.parametrize(
    ("model", "path", "names"),
    [
        ("vit", "heads@1,positions@2", ["heads", "heads → positions"]),
        ("separable", "ungroup[*.depthwise]@1,lcn[*.depthwise]@2,efcn[*.depthwise]@3", ["ungroup", "ungroup → lcn", "ungroup → efcn"]),
        ("pruned-mlp", "unmask@1,conv@2", ["unmask"]),
    ],
)
def test_a_stage_that_builds_on_another_is_counted_on_top_of_it(model, path, names):
    plan = plan_run(attrs.evolve(CONFIG, model=model, path=(path,), control="none"), timed=False)
    assert plan.refusal is None
    found = {network.footprint.name.partition("[")[0]: network.footprint.parameters for network in plan.networks}
    network = build_model(model, input_shape=(1, 40), classes=10)
    expected = {"constrained": sum(parameter.numel() for parameter in network.parameters())}
    for name, stage in zip(names, path.split(","), strict=False):
        relaxation, _, layers = stage.partition("@")[0].partition("[")
        network = relax(network, relaxation, layers=layers.removesuffix("]") or "*", example_input=torch.randn(2, 1, 40)).model
        expected[name] = sum(parameter.numel() for parameter in network.parameters())
    assert found == expected


def test_what_was_relaxed_inside_of_a_layer_goes_back_with_it():
    config = attrs.evolve(CONFIG, model="vit", options={"vit": {"tied": True}}, path=("heads@1,untie@2,conv@3",), control="none")
    plan = plan_run(config, timed=False)
    counted = {network.footprint.name: network.segments for network in plan.networks}
    assert counted == {"constrained": 2, "heads": 1, "heads[blocks.block.attn] + untie[blocks.block]": 1}
