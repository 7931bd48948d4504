"""What keeps processes from training a segment together is told before anything starts, in one sentence with what to do."""

from __future__ import annotations

import attrs
import pytest

from anarch_core.config.run_config import RunConfig
from anarch_core.planning.plan import plan_run
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import OptimizerInfo, ProbeInfo
from anarch_core.plugin.registry import Registry, get_registry

COMPONENTS = """
import torch
from anarch_core.probe.base import AbstractProbe, Measurement

class Apart(AbstractProbe):
    def measure(self, context):
        return Measurement(scalars={"answer": 42.0})

class Together(Apart):
    sharded = True

def build(parameters, lr, options):
    return torch.optim.SGD(parameters, lr)
"""


@pytest.fixture
def registry(module_of, tmp_path, monkeypatch) -> Registry:
    """With probes and an optimizer that say whether they can, or do not."""
    module = module_of(COMPONENTS)
    monkeypatch.syspath_prepend(tmp_path)
    components = (
        ProbeInfo(name="apart", summary="Does not say so.", target=f"{module}:Apart"),
        ProbeInfo(name="together", summary="Says so.", target=f"{module}:Together"),
        OptimizerInfo(name="wholesale", summary="Does not say so.", target=f"{module}:build"),
    )
    plugin = PluginRecord(name="odd", module="odd", distribution="odd", version="1", status=Status.LOADED, error="", components=components)
    return Registry((*get_registry().plugins, plugin))


def refusal(config: RunConfig, registry: Registry | None = None) -> str | None:
    return plan_run(config, timed=False, registry=registry).refusal


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"workers": "ray"}, "workers 'ray' have one process train a segment, and shards is 2; use --workers local, or --shards 1"),
        (
            {"optimizer": "wholesale"},
            "optimizer 'wholesale' does not say that its steps are elementwise, as is needed where 2 processes hold a layer together; "
            "use --optimizer adam or adamw or sgd, or --shards 1",
        ),
        (
            {"probe": ("together", "apart")},
            "probe 'apart' does not say that it measures networks that 2 processes hold together; leave it out, or use --shards 1",
        ),
        (
            {"watch": ("apart",)},
            "watched probe 'apart' does not say that it measures networks that 2 processes hold together; leave it out, or use --shards 1",
        ),
    ],
    ids=["workers", "optimizer", "probe", "watched"],
)
def test_components_have_to_say_that_they_can(small, registry, asked, message) -> None:
    config = attrs.evolve(small(), **asked)
    if asked.get("workers") != "ray":
        assert refusal(config, registry) is None
    assert refusal(attrs.evolve(config, shards=2), registry) == message


def test_those_that_say_so_can(small, registry) -> None:
    assert refusal(attrs.evolve(small(), shards=2, probe=("together",), watch=("together",), optimizer="adam"), registry) is None


def test_layers_of_too_few_channels_are_told_by_name(small) -> None:
    assert refusal(small(shards=3)) is None
    assert refusal(small(shards=4)) == (
        "features.0, features.2, features.4 cannot be relaxed: it has 3 output channels, fewer than the 4 processes. "
        "Exclude such layers by pattern, as in --layers '*,!features.0', or use fewer --shards"
    )


@pytest.mark.parametrize("asked", [{"relax": "grow"}, {"relax": (), "path": ("grow@1,lcn@2",)}], ids=["one", "path"])
def test_every_stage_has_to_be_of_the_lattice(small, asked) -> None:
    assert refusal(small(**asked)) is None
    assert refusal(small(shards=2, **asked)) == (
        "grow cannot be shared out among 2 processes: it is no relaxation of the lattice, and may mix output channels; use --shards 1"
    )


def test_stages_of_the_lattice_are_shared_out_one_after_the_other(small) -> None:
    plan = plan_run(small(shards=2, relax=(), path=("lcn@1,efcn@2",)), timed=False)
    assert plan.refusal is None
    assert [network.footprint.processes for network in plan.networks] == [2, 2, 2]


def test_a_run_of_replicas_is_no_mistake_but_told(small) -> None:
    plan = plan_run(small(shards=2, relax=(), control="none"), timed=False)
    assert plan.refusal is None
    assert plan.notes == (
        "shards 2 shares out relaxed layers, and this run has none: each process computes all of it; add --relax or --path",
    )


def test_a_process_holds_its_part_and_the_plan_says_how_large_the_whole_is(small) -> None:
    plans = {shards: plan_run(small(shards=shards, switch="at:1"), timed=False) for shards in (1, 3)}
    (constrained, whole), (replicated, part) = ([network.footprint for network in plan.networks] for plan in plans.values())
    assert (replicated.bytes, replicated.held, replicated.sent) == (constrained.bytes, constrained.bytes, 0)
    assert (part.parameters, part.bytes) == (whole.parameters, whole.bytes)
    head = constrained.architecture.report or 4 * (3 * 2 * 3 + 3)  # of the linear layer, which every process has
    assert part.held - head == (whole.held - head) / 3
    assert part.sent > 0 == whole.sent
