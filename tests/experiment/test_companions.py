"""Segments that one is compared with: another order of batches, no switch, another seed."""

from __future__ import annotations

import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError
from anarch_core.experiment.companions import companions, lonely
from anarch_core.experiment.segments import Segment
from anarch_core.experiment.tree import tree
from anarch_core.plugin.registry import get_registry
from anarch_core.probe.base import COMPANIONS, AbstractProbe
from anarch_core.schedule import Clock, Moment

IPE = 40


def grow(**settings: object) -> dict[str, Segment]:
    config = RunConfig(**{"model": "cnn1d", "relax": "efcn", "epochs": 10, "branch_epochs": 5, **settings})
    switches = {seed: [Moment(0, IPE), Moment(3 * IPE, IPE)] for seed in config.seeds}
    return {segment.title: segment for segment in tree(config, Clock(config.epochs, IPE), switches, get_registry())}


def found(segments: dict[str, Segment], title: str) -> dict[str, str]:
    planned = {segment.id: segment for segment in segments.values()}
    return {name: other.title for name, other in companions(segments[title], COMPANIONS, planned, 0).items()}


def test_another_order_of_batches_is_another_segment_from_the_same_start():
    alone, both = grow(), grow(noise_seeds="0,1")
    assert {title: segment.id for title, segment in alone.items()}.items() <= {t: s.id for t, s in both.items()}.items()
    assert set(both) - set(alone) == {f"{title}, noise 1" for title in alone if not title.startswith("trunk")}
    assert len({segment.id for segment in both.values()}) == len(both)
    one, other = both["efcn at 3ep, seed 0"], both["efcn at 3ep, seed 0, noise 1"]
    assert (one.parent, one.leaves, one.transition, one.seed) == (other.parent, other.leaves, other.transition, other.seed)
    assert one.order_seed == 0 != other.order_seed


def test_orders_of_batches_differ_by_seed_and_by_noise():
    segments = grow(noise_seeds="0-3", seeds="0-3").values()
    assert len({segment.order_seed for segment in segments}) == 16


def test_who_is_compared_with_whom():
    segments = grow(noise_seeds="0,1", seeds="0,1", path=["lcn@2,efcn@5"])
    assert found(segments, "trunk, seed 0") == {}
    assert found(segments, "trunk, seed 1") == {"sibling": "trunk, seed 0"}
    assert found(segments, "efcn at 3ep, seed 0") == {"control": "continued at 3ep, seed 0"}
    assert found(segments, "efcn at 3ep, seed 1, noise 1") == {
        "twin": "efcn at 3ep, seed 1",
        "control": "continued at 3ep, seed 1, noise 1",
        "sibling": "efcn at 3ep, seed 0, noise 1",
    }
    assert found(segments, "continued at 0ep, seed 0, noise 1") == {"twin": "continued at 0ep, seed 0"}
    assert found(segments, "scratch efcn, seed 1") == {"sibling": "scratch efcn, seed 0"}
    assert found(segments, "lcn>efcn at 5ep, seed 0, noise 1") == {"twin": "lcn>efcn at 5ep, seed 0"}


def test_a_penalised_branch_has_the_control_without_a_penalty():
    assert found(grow(penalty="parts"), "efcn at 3ep, seed 0") == {"control": "continued at 3ep, seed 0"}


def test_companions_come_before_those_that_are_compared_with_them():
    segments = list(grow(noise_seeds="0,1", seeds="2,0,1", path=["lcn@2,efcn@5"]).values())
    planned = {segment.id: segment for segment in segments}
    places = {segment.id: place for place, segment in enumerate(segments)}
    for segment in segments:
        for other in companions(segment, COMPANIONS, planned, 2).values():
            assert places[other.id] < places[segment.id]


def test_a_run_says_which_probes_have_nobody_to_compare_with():
    class Comparing(AbstractProbe):
        needs = frozenset(COMPANIONS)

        def measure(self, context):
            raise NotImplementedError

    said = lonely(RunConfig(model="cnn1d", relax="efcn", control="scratch"), {"comparing": Comparing(None)})
    for text, remedy in zip(said, ("--noise-seeds 0,1", "--control continued,scratch", "--seeds 0,1"), strict=True):
        assert text.startswith("probe comparing measures nothing: it needs ")
        assert text.endswith(f"; add {remedy}")
    assert lonely(RunConfig(model="cnn1d", relax="efcn", seeds="0,1", noise_seeds="0,1"), {"comparing": Comparing(None)}) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"noise_seeds": "1,2"}, "noise_seeds 1,2 leaves out 0, the order of batches that others are compared with; write 0,1,2"),
        ({"noise_seeds": "0,1", "relax": ()}, "nothing does; add --relax or --control continued"),
        ({"probe_at": "soon"}, "probe_at: 'soon' is not a moment"),
        ({"probe_at": "0"}, "probe_at: expected moments after the start of a segment, got '0'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ConfigError) as refused:
        RunConfig(**{"model": "cnn1d", "relax": "efcn", **settings})
    assert said in str(refused.value)


def test_moments_are_written_in_one_way():
    assert RunConfig(model="cnn1d", probe_at=[5, "5", "5ep", "30it"]).probe_at == ("5ep", "30it")
