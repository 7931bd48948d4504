"""What a segment starts with."""

from __future__ import annotations

import sys

import attrs
import torch

from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import OptimizerInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.relaxation.optimizer_state import carry_optimizer_state
from anarch_core.relaxation.verbs import relax
from anarch_core.running.runner import run


class Averaging(torch.optim.SGD):
    """Plain descent that keeps the running average of the weights."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter].setdefault("average", parameter.clone()).lerp_(parameter, 0.1)


def build(parameters, lr, options):
    return Averaging([parameter for _, parameter in parameters], lr=lr)


def registry(**record) -> Registry:
    """The installed plugins, and one of an optimizer that averages."""
    assert sys.modules[__name__].build is build
    info = OptimizerInfo(name="averaging", summary="s", target=f"{__name__}:build", **record)
    plugin = PluginRecord(name="averaging", module="m", distribution="x", version="1", status=Status.LOADED, components=(info,))
    return Registry((*get_registry().plugins, plugin))


def test_the_state_of_a_plugins_optimizer_moves_as_its_record_says(small, tmp_path, monkeypatch):
    starts = []

    def spied(relaxed, source, target, **roles):
        fate = carry_optimizer_state(relaxed, source, target, **roles)
        old = [source.state[parameter]["average"].clone() for parameter in relaxed.parent.parameters()]
        new = [target.state[parameter]["average"].clone() for parameter in relaxed.model.parameters()]
        starts.append((relaxed.parent, old, new))
        return fate

    monkeypatch.setattr("anarch_core.segment.start.carry_optimizer_state", spied)
    config = attrs.evolve(small(optimizer_state="carry", control="none", switch="at:2"), optimizer="averaging")
    results = run(config, out=tmp_path / "run", progress="silent", registry=registry(roles={"average": "weight"}))
    [branch] = [segment for segment in results.segments if segment.kind == "branch"]
    assert set(branch.optimizer_state.values()) == {"carried"}
    [(parent, old, new)] = starts
    with torch.no_grad():
        for parameter, average in zip(parent.parameters(), old, strict=True):
            parameter.copy_(average)
    lifted = relax(parent, "efcn", example_input=torch.zeros(1, 1, 16))
    assert all(torch.equal(found, expected) for found, expected in zip(new, lifted.model.parameters(), strict=True))


def test_state_of_which_the_record_says_nothing_is_reset(small, tmp_path):
    config = attrs.evolve(small(optimizer_state="carry", control="none", switch="at:2"), optimizer="averaging")
    results = run(config, out=tmp_path / "run", progress="silent", registry=registry())
    [branch] = [segment for segment in results.segments if segment.kind == "branch"]
    assert set(branch.optimizer_state.values()) == {"carried", "reset"}
