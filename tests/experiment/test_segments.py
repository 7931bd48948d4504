"""The tree of an experiment and the identities in it."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError
from anarch_core.experiment.segments import Segment, Transition, snapshots
from anarch_core.experiment.tree import tree
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.schedule import Clock, Moment

IPE = 40


@pytest.fixture(scope="module")
def registry() -> Registry:
    return get_registry()


def at(*epochs: int) -> list[Moment]:
    return [Moment(epoch * IPE, IPE) for epoch in epochs]


def grow(registry: Registry, switches: list[Moment], **settings: object) -> tuple[Segment, ...]:
    config = RunConfig(**{"model": "cnn1d", "relax": "efcn", "epochs": 10, "branch_epochs": 5, **settings})
    return tree(config, Clock(config.epochs, IPE), dict.fromkeys(config.seeds, switches), registry)


def test_every_relaxation_switch_time_and_seed_has_a_branch_and_controls(registry):
    segments = grow(registry, at(0, 3, 10), relax="efcn,lcn", seeds="0-1")
    assert Counter(segment.kind for segment in segments) == {"trunk": 2, "branch": 12, "continued": 6, "scratch": 4}
    assert len({segment.id for segment in segments}) == len(segments)


def test_more_segments_than_anybody_trains_are_refused(registry, monkeypatch):
    monkeypatch.setattr("anarch_core.experiment.tree.MOST_SEGMENTS", 20)
    assert len(grow(registry, at(0, 3), seeds="0-2")) == 18
    with pytest.raises(ConfigError, match="seeds: 4 of them, at each switch of 'log' and for each relaxation, make more than 20 segments"):
        grow(registry, at(0, 3), seeds="0-3")


def test_parents_come_first_and_scratch_has_none(registry):
    seen: set[str] = set()
    for segment in grow(registry, at(0, 3), path=["lcn@2,efcn@5,conv@7"]):
        assert segment.parent is None or segment.parent.id in seen
        assert (segment.parent is None) == (segment.kind in ("trunk", "scratch"))
        seen.add(segment.id)


def test_switches_found_later_only_add_segments(registry):
    before = grow(registry, at(3), control="none")
    after = grow(registry, at(3, 7), control="none")
    assert {segment.id for segment in before} < {segment.id for segment in after}


def test_a_trunk_alone(registry):
    assert [segment.kind for segment in grow(registry, (), relax=(), control="none")] == ["trunk"]


def test_a_path_is_a_chain_in_which_each_stage_lasts_until_the_next(registry):
    segments = grow(registry, at(0), relax=(), path=["lcn@2,efcn@5,conv@7"], control="none")
    trunk, lcn, efcn, conv = segments
    assert [segment.relaxation for segment in segments] == [None, "lcn", "lcn>efcn", "lcn>efcn>conv"]
    assert [segment.settings.iterations // IPE for segment in segments] == [10, 3, 2, 5]
    assert [segment.age // IPE for segment in segments] == [0, 2, 5, 7]
    assert (lcn.parent, efcn.parent, conv.parent) == (trunk, lcn, efcn)
    assert [segment.transition.action for segment in segments] == ["none", "relax", "relax", "project"]
    assert snapshots(segments) == {trunk.id: {2 * IPE}, lcn.id: {3 * IPE}, efcn.id: {2 * IPE}}


def test_moments_of_a_path_may_be_inside_epochs_and_must_ascend_in_iterations(registry):
    segments = grow(registry, at(0), relax=(), path=["lcn@70it,efcn@2ep"], control="none")
    assert [segment.age for segment in segments] == [0, 70, 80]
    with pytest.raises(ConfigError, match="must ascend"):
        grow(registry, at(0), relax=(), path=["lcn@90it,efcn@2ep"], control="none")


def test_layers_may_be_relaxed_one_after_another(registry):
    segments = grow(registry, at(0), relax=(), path="lcn[features.0]@2,tiled:2[features.2,features.4]@5,conv[features.0]@7", control="none")
    _, first, second, third = segments
    assert [segment.relaxation for segment in segments[1:]] == [
        "lcn[features.0]",
        "lcn[features.0]>tiled:2[features.2,features.4]",
        "lcn[features.0]>tiled:2[features.2,features.4]>conv[features.0]",
    ]
    assert [(step.action, step.relaxation, step.layers) for step in third.steps] == [
        ("relax", "lcn", ("features.0",)),
        ("relax", "tiled", ("features.2", "features.4")),
        ("project", None, ("features.0",)),
    ]
    assert first.steps == third.steps[:1]
    assert second.steps == third.steps[:2]
    assert third.parent is second


def test_a_network_that_was_projected_back_whole_is_the_constrained_one(registry):
    *_, last = grow(registry, at(0), relax=(), path="lcn[features.0]@2,conv@7", control="none")
    assert last.steps == ()


def scratch(segments: tuple[Segment, ...]) -> dict[str | None, Segment]:
    return {segment.relaxation: segment for segment in segments if segment.kind == "scratch"}


def test_the_scratch_control_of_a_path_is_the_network_that_it_ends_with(registry):
    made = scratch(grow(registry, at(0), relax=(), path="lcn[features.0]@2,efcn[features.2]@5"))
    assert list(made) == ["lcn[features.0]>efcn[features.2]"]
    [control] = made.values()
    assert control.transition.action == "scratch"
    assert [(step.relaxation, step.layers) for step in control.steps] == [("lcn", ("features.0",)), ("efcn", ("features.2",))]
    assert json.loads(json.dumps(control.describe()))["transition"]["then"][0]["relaxation"] == "efcn"


def test_paths_that_end_alike_share_the_scratch_control(registry):
    alone = scratch(grow(registry, at(0), relax="lcn"))
    shared = scratch(grow(registry, at(0), relax="lcn", path=["lcn[features.0]@2,lcn@5", "lcn[features.2]@3,lcn@5"]))
    assert shared == alone


def test_what_a_path_relaxes_is_part_of_identities(registry):
    ways = ["lcn[features.0]@2,efcn@5", "lcn[features.2]@2,efcn@5", "lcn@2,efcn@5", "lcn[features.0]@2,efcn[features.0]@5"]
    assert len({grow(registry, at(0), relax=(), path=way, control="none")[-1].id for way in ways}) == len(ways)
    controls = ["lcn[features.0]@2,efcn[features.2]@5", "efcn[features.0]@2,lcn[features.2]@5", "lcn[features.0]@2,efcn[features.4]@5"]
    assert len({scratch(grow(registry, at(0), relax=(), path=way)).popitem()[1].id for way in controls}) == len(controls)


def test_continued_has_the_branch_s_settings_and_no_transition(registry):
    segments = grow(registry, at(3), branch_lr=0.02, optimizer_state="carry")
    branch = next(segment for segment in segments if segment.kind == "branch")
    continued = next(segment for segment in segments if segment.kind == "continued")
    assert continued.settings == branch.settings
    assert continued.transition == Transition(optimizer_state="carry")
    assert (continued.parent, continued.leaves) == (branch.parent, branch.leaves)


def test_identities_are_frozen(registry):
    """Old run directories stay readable: if this fails, an identity changed that users have on disk."""
    segments = grow(registry, at(3), path=["lcn@2,conv@5"])
    assert {segment.title: segment.id for segment in segments} == FROZEN


FROZEN = {
    "trunk, seed 0": "3cb84cf0aedd",
    "scratch efcn, seed 0": "d3e83afb210d",
    "continued at 2ep, seed 0": "c8613ececa77",
    "continued at 3ep, seed 0": "2aef604daabb",
    "efcn at 3ep, seed 0": "5ad62b2975ca",
    "lcn at 2ep, seed 0": "5433cb7eefa9",
    "lcn>conv at 5ep, seed 0": "4a67e9c993e0",
}


def test_identity_ignores_what_does_not_change_the_weights(registry):
    plain = [segment.id for segment in grow(registry, at(0, 3))]
    assert [segment.id for segment in grow(registry, at(0, 3), probe="delta", device="cpu", jobs=2, threads=1, out="elsewhere")] == plain
    assert [segment.id for segment in grow(registry, at(0, 3), options={"sgd": {"momentum": 0.0}})] == plain


@pytest.mark.parametrize(
    "setting",
    [
        {"lr": 0.2},
        {"epochs": 11},
        {"batch_size": 50},
        {"seeds": "1"},
        {"train_limit": 1000},
        {"validation": 0.1},
        {"precision": "float64"},
        {"lr_schedule": "cosine"},
        {"lr_schedule": "warmup:2"},
        {"lr_schedule": "warmup:2+cosine"},
        {"options": {"sgd": {"momentum": 0.9}}},
        {"options": {"cnn1d": {"channels": 8}}},
        {"optimizer": "adam"},
        {"augment": "flip"},
        {"clip_norm": 1.0},
        {"average": "ema"},
        {"average": "swa"},
        {"stop_early": "train_loss:3"},
    ],
    ids=str,
)
def test_identity_of_all_segments_depends_on(registry, setting):
    plain = grow(registry, at(3), control="continued")
    changed = grow(registry, at(3), control="continued", **setting)
    assert not {segment.id for segment in plain} & {segment.id for segment in changed}


@pytest.mark.parametrize(
    "setting", [{"branch_lr": 0.2}, {"branch_epochs": 6}, {"optimizer_state": "carry"}, {"layers": "!features.0,*"}], ids=str
)
def test_identity_of_the_trunk_does_not_depend_on_what_comes_after(registry, setting):
    plain, changed = grow(registry, at(3), control="none"), grow(registry, at(3), control="none", **setting)
    assert plain[0].id == changed[0].id
    assert plain[1].id != changed[1].id


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"lr_schedule": "warmup:400it"}, "^lr_schedule: the warm-up of 400it leaves nothing of a stretch of 10ep"),
        ({"branch_lr_schedule": "warmup:200it"}, "^branch_lr_schedule: the warm-up of 200it leaves nothing of a stretch of 5ep"),
        (
            {"branch_lr_schedule": "warmup:2", "path": ["lcn@2,conv@4"]},
            "^stage lcn@2: the warm-up of 2ep leaves nothing of a stretch of 2ep",
        ),
    ],
)
def test_a_stretch_that_ends_within_its_warm_up_is_refused(registry, settings, why):
    with pytest.raises(ConfigError, match=why):
        grow(registry, at(3), **settings)


def test_penalties_are_part_of_the_segments_whose_networks_are_relaxed(registry):
    settings = {"relax": "lcn", "path": ["efcn@2,conv@4,lcn@6"]}
    plain, held = grow(registry, at(3), **settings), grow(registry, at(3), penalty="parts:0.5,bound", **settings)
    penalised = {segment.title for segment in held if segment.settings.penalties}
    assert penalised == {"scratch lcn, seed 0", "lcn at 3ep, seed 0", "efcn at 2ep, seed 0", "efcn>conv>lcn at 6ep, seed 0"}
    assert held[1].settings.penalties == (("parts", {"weight": 0.5}), ("bound", {}))
    same = {segment.title for segment, other in zip(plain, held, strict=True) if segment.id == other.id}
    assert same == {"trunk, seed 0", "continued at 2ep, seed 0", "continued at 3ep, seed 0"}, "what no penalty touches is shared"
    assert len({grow(registry, at(3), relax="lcn", penalty=penalty)[-1].id for penalty in ("parts", "parts:0.2", "bound")}) == 3


def test_identity_depends_on_the_order_and_the_options_of_augmentations(registry):
    chains = ["crop,flip", "flip,crop", "crop:2,flip", "crop"]
    assert len({grow(registry, at(), augment=chain)[0].id for chain in chains}) == len(chains)
    assert grow(registry, at(), augment="crop:4")[0].id == grow(registry, at(), augment="crop")[0].id


def test_description_is_json(registry):
    for segment in grow(registry, at(3), path=["lcn@2,conv@5"], augment="crop:2,flip"):
        assert json.loads(json.dumps(segment.describe()))["id"] == segment.id
