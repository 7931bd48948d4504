"""Several workers are handed first what leads to the most."""

from __future__ import annotations

import itertools

import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.experiment.tree import tree
from anarch_core.planning.order import longest_first
from anarch_core.plugin.registry import get_registry
from anarch_core.schedule import Clock, Moment

CLOCK = Clock(epochs=4, iterations_per_epoch=3)


def segments(*moments, seeds=(0,), **settings):
    config = RunConfig(model="cnn1d", relax=("efcn", "lcn"), epochs=4, branch_epochs=2, seeds=seeds, **{"control": "none", **settings})
    return tree(config, CLOCK, dict.fromkeys(seeds, tuple(Moment(3 * moment, 3) for moment in moments)), get_registry())


def relaxed(times):
    return lambda segment: times if segment.relaxation else 1.0


def titles(found):
    return [segment.title.removesuffix(", seed 0") for segment in found]


def test_long_segments_come_before_short_ones():
    tree = segments(0, 2, control="continued")
    found = titles(longest_first(tree, relaxed(2.0)))
    assert found == [
        "trunk",
        *(f"{name} at {time}ep" for time in (0, 2) for name in ("efcn", "lcn")),
        "continued at 0ep",
        "continued at 2ep",
    ]


def test_what_much_starts_from_comes_before_what_is_longer_itself():
    tree = segments(4, control="scratch")
    assert titles(longest_first(tree, relaxed(3.0)))[0] == "trunk"  # 12 steps and then 6 of 3, where scratch takes 6 of 3
    early = segments(0, control="scratch")
    assert titles(longest_first(early, relaxed(30.0)))[:1] == ["trunk"]  # which ties with what starts at its beginning


@pytest.mark.parametrize("times", [0.1, 1.0, 10.0])
def test_parents_stay_before_their_children(times):
    found = longest_first(segments(0, 1, 4, seeds=(0, 1), control="continued,scratch"), relaxed(times))
    places = {segment.id: place for place, segment in enumerate(found)}
    assert all(places[segment.parent.id] < places[segment.id] for segment in found if segment.parent is not None)
    assert len(found) == len(places)


def test_equal_ones_stay_in_the_order_of_the_tree():
    tree = segments(0, 1, 4)
    branches = [segment for segment in longest_first(tree, relaxed(1.0)) if segment.kind == "branch"]
    assert branches == [segment for segment in tree if segment.kind == "branch"]
    assert len(list(itertools.groupby(branches, lambda segment: segment.switch))) == 3
