from __future__ import annotations

import re

import attrs
import pytest
import torch

import anarch_core
from anarch_core.config.run_config import RunConfig
from anarch_core.data import load_data
from anarch_core.errors import ConfigError
from anarch_core.models import build_model
from anarch_core.objective.classification import CrossEntropy
from anarch_core.planning.plan import plan_run
from anarch_core.planning.preflight import ON_THE_WAY
from anarch_core.training.loop import Training

CONFIG = RunConfig(relax="efcn,lcn", switch="at:0,2", epochs=2, branch_epochs=3, train_limit=250, batch_size=100, device="cpu", jobs=1)


pytestmark = pytest.mark.usefixtures("mnist1d")


@pytest.fixture(scope="module")
def plan(mnist1d):
    return plan_run(CONFIG)


def test_sizes_are_those_of_the_networks_that_will_be_trained(plan):
    data = load_data("mnist1d", limit=10)
    model = build_model("cnn1d", input_shape=data.input_shape, classes=10)
    for network in plan.networks:
        size = network.footprint
        if size.report is not None:
            model = anarch_core.relax(model, size.name, example_input=data.x_train).model
        assert size.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert size.bytes >= 4 * size.parameters
        model = build_model("cnn1d", input_shape=data.input_shape, classes=10)


def test_operations_of_the_constrained_network_are_counted(plan):
    # (out positions, inputs of a sum, channels) of three convolutions and the linear head; a multiply-add counts two
    assert plan.networks[0].flops == 2 * (20 * 5 * 25 + 10 * 75 * 25 + 5 * 75 * 25 + 125 * 10)


def test_segments_and_steps_are_those_of_the_tree(plan):
    assert [segment.kind for segment in plan.segments].count("branch") == 4
    # trunk and two controls; then scratch and two branches for each relaxation
    assert [(network.segments, network.iterations) for network in plan.networks] == [(3, 3 * (2 + 3 + 3)), (3, 27), (3, 27)]


def test_time_is_that_of_all_steps_and_evaluations(plan):
    evaluated = 2 * (250 + 1000) / 3 / 100
    steps = [network.step_seconds * (network.iterations + evaluated * network.segments) for network in plan.networks]
    assert plan.seconds == pytest.approx(sum(steps))
    assert plan_run(attrs.evolve(CONFIG, relax="efcn"), timed=False).seconds is None


def test_time_is_told_for_more_and_more_at_once_down_to_the_longest_way(plan):
    paced = attrs.evolve(plan, networks=[attrs.evolve(network, step_seconds=60.0) for network in plan.networks])
    table = paced.times()
    assert table.headings[:4] == ("segments at once", "1", "2", "4")
    assert table.rows[0][:2] == ("time", f"{paced.seconds / 3600:.0f} h")
    assert table.rows[1][:3] == ("times as fast", "1", "1.83")
    fewest = table.headings[-1]
    assert table.caption == (
        f"Each with a core of its own, as fast as here; more than {fewest} at once are of no use: "
        "the longest way is trunk, seed 0 → continued at 2ep, seed 0."
    )
    assert "segments at once" in repr(paced)


def test_nothing_is_at_once_in_a_run_of_one_segment_nor_told_where_nothing_was_timed(plan):
    assert attrs.evolve(plan, segments=plan.segments[:1]).times() is None
    assert plan_run(attrs.evolve(CONFIG, relax="efcn"), timed=False).times() is None


def test_of_workers_elsewhere_only_what_they_train_is_known(plan):
    away = attrs.evolve(plan_run(attrs.evolve(CONFIG, workers="slurm", device="cuda", jobs=None), timed=False), networks=plan.networks)
    facts = dict(away.facts())
    assert facts["workers"] == "slurm, on other machines"
    assert facts["device"] == "cuda of each worker, float32; what is said of time and memory was found on this machine's processor"
    assert facts["time"].endswith("one segment after the other, if they were as fast as this machine's processor")
    assert set(away.memory().headings) & {"fits", "largest batch"} == set()
    assert away.times().caption.startswith("Each as fast as a core of this machine, where steps were timed; other workers take other times")
    assert away.segments == plan.segments


def test_memory_is_told_by_what_it_is_for():
    """Training and evaluation keep small blocks that the other one left; those are given back before a probe."""
    plan = plan_run(attrs.evolve(CONFIG, probe=("hessian", "delta"), options={}), timed=False)
    constrained, *relaxed = (network.needed_bytes for network in plan.networks)
    assert list(constrained) == ["training", "evaluation", "probe hessian"]
    footprints = [network.footprint for network in plan.networks]
    for needed, footprint in zip((constrained, *relaxed), footprints, strict=True):
        small = max(footprint.training.small, footprint.evaluation.small)
        assert needed["training"] == footprint.training.large + 2 * small + ON_THE_WAY
        assert needed["evaluation"] == footprint.evaluation.large + 2 * small + ON_THE_WAY
    for needed, footprint in zip(relaxed, footprints[1:], strict=True):
        assert needed["probe delta"] == footprint.probes["delta"].held + ON_THE_WAY
        assert footprint.probes["hessian"].used > 7 * footprint.bytes  # two networks, the gradient, its graph, two vectors, a product


def test_an_average_of_the_weights_is_one_more_network():
    config = attrs.evolve(CONFIG, probe=("weights",), options={})
    plain, averaged = (plan_run(attrs.evolve(config, average=average), timed=False) for average in (None, "ema"))
    for without, network in zip(plain.networks, averaged.networks, strict=True):
        before, after, size = without.footprint, network.footprint, network.footprint.bytes
        assert after.training.used == before.training.used + size
        assert after.evaluation.used == before.evaluation.used + size
        # What a rehearsal finds beside the networks depends a little on what was computed before.
        assert after.probes["weights"].used - before.probes["weights"].used == pytest.approx(size, rel=0.1)


def test_largest_batch_is_what_fits(monkeypatch):
    at_hand = 4 * 10**6
    monkeypatch.setattr("anarch_core.planning.plan.available_bytes", lambda device: at_hand)
    batch = plan_run(CONFIG, timed=False).networks[1].largest_batch
    assert batch > CONFIG.batch_size
    needed = plan_run(attrs.evolve(CONFIG, batch_size=batch), timed=False).networks[1].footprint.training.held
    assert needed == pytest.approx(at_hand, rel=0.05)


def test_too_little_memory_is_foretold(monkeypatch):
    monkeypatch.setattr("anarch_core.planning.sharing.available_bytes", lambda device: 10**6)
    monkeypatch.setattr("anarch_core.planning.plan.available_bytes", lambda device: 10**6)
    plan = plan_run(CONFIG)
    assert re.match(r"(training|evaluation) \((efcn|lcn)\) needs", plan.refusal)
    assert "free" in plan.refusal
    assert plan.seconds is None
    assert all(network.largest_batch < CONFIG.batch_size for network in plan.networks)


def test_moments_beyond_the_trunk_are_refused():
    with pytest.raises(ConfigError, match="beyond the trunk"):
        plan_run(attrs.evolve(CONFIG, switch="at:3"))


def test_a_step_that_fails_leaves_the_number_of_threads_as_it_was(monkeypatch):
    def fail(*args, **kwargs):
        msg = "no step today"
        raise ArithmeticError(msg)

    found = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        monkeypatch.setattr("anarch_core.planning.chaining.Training.advance", fail)
        with pytest.raises(ArithmeticError):
            plan_run(attrs.evolve(CONFIG, threads=1))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(found)


def test_steps_are_timed_as_they_will_be_taken(monkeypatch):
    """With the run's objective and its augmentations, which may take longer than the network."""
    taken = []

    class Watched(Training):
        def __attrs_post_init__(self):
            taken.append((self.objective, self.augment))
            super().__attrs_post_init__()

    monkeypatch.setattr("anarch_core.planning.chaining.Training", Watched)
    monkeypatch.setattr("anarch_core.planning.plan.TIMED_SECONDS", 0.01)
    plan_run(attrs.evolve(CONFIG, relax=(), control=(), augment="crop"))
    ((objective, augment),) = taken
    assert isinstance(objective, CrossEntropy)
    assert augment is not None
