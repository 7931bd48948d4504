"""What a relaxation has nothing to do for is told once and stays as it is; what it ought to relax and cannot is refused."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from anarch_core.errors import NoEffectWarning, SurgeryError
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import RelaxationInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.relaxation.verbs import plan, project, relax

X = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))


def wide_only():
    """The relaxation to fully connected layers, of kernels wider than one alone."""

    class Wide(type(get_registry().create("relaxation", "efcn"))):
        def idle(self, site):
            return super().idle(site) or ("its kernel is 1 wide" if site.module.kernel_size == (1,) else None)

    return Wide


@pytest.fixture
def registry(monkeypatch) -> Registry:
    monkeypatch.setattr(sys.modules[__name__], "Wide", wide_only(), raising=False)
    info = RelaxationInfo(name="wide", summary="s", target=f"{__name__}:Wide")
    plugin = PluginRecord(name="wide", module="m", distribution="x", version="1", status=Status.LOADED, components=(info,))
    return Registry((*get_registry().plugins, plugin))


def network(*kernels: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Conv1d(4, 4, kernel) for kernel in kernels))


def test_layers_with_nothing_to_relax_stay_and_are_told_of_by_reason(registry):
    report = relax(network(3, 1, 3, 1), "wide", example_input=X, registry=registry).report
    assert [layer.path for layer in report.layers] == ["0", "2"]
    assert report.idle == {"1": "its kernel is 1 wide", "3": "its kernel is 1 wide"}
    assert not report.refused
    assert report.exact
    assert "nothing to relax in 1, 3: its kernel is 1 wide" in str(report)


def test_one_that_is_chosen_by_its_name_is_told_of_too(registry):
    assert relax(network(3, 1), "wide", example_input=X, layers=["0", "1"], registry=registry).report.idle
    assert not relax(network(3, 1), "wide", example_input=X, layers="0", registry=registry).report.idle


def test_of_many_only_the_first_are_named(registry):
    report = plan(network(*[1] * 40), "wide", example_input=X, registry=registry)
    assert len(report.idle) == 40
    assert report.idleness == "nothing to relax in 0, 1, 2, 3 and 36 more: its kernel is 1 wide"


def test_where_no_layer_is_left_the_warning_says_why(registry):
    with pytest.warns(
        NoEffectWarning, match=r"^wide found no layer to relax in Sequential \(nothing to relax in 0: its kernel is 1 wide\)$"
    ):
        model = relax(network(1), "wide", example_input=X, registry=registry).model
    assert type(model[0]) is nn.Conv1d


def hooked(layer: nn.Module) -> None:
    layer.register_forward_hook(lambda *_: None)


def parametrized(layer: nn.Module) -> None:
    nn.utils.parametrizations.weight_norm(layer)


@pytest.mark.parametrize("odd", [hooked, parametrized])
def test_what_could_not_be_relaxed_is_no_obstacle_where_there_is_nothing_to_relax(registry, odd):
    model = network(3, 1)
    odd(model[1])
    assert list(relax(model, "wide", example_input=X, registry=registry).report.idle) == ["1"]
    model = network(3, 3)
    odd(model[1])
    with pytest.raises(SurgeryError, match="1 cannot be relaxed"):
        relax(model, "wide", example_input=X, registry=registry)


def test_of_layers_that_are_not_called_those_with_something_to_relax_are_refused(registry):
    class Skipping(nn.Module):
        def __init__(self, kernel):
            super().__init__()
            self.used, self.unused = nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, kernel)

        def forward(self, x):
            return self.used(x)

    assert relax(Skipping(1), "wide", example_input=X, registry=registry).report.idle == {"unused": "its kernel is 1 wide"}
    with pytest.raises(SurgeryError, match="unused cannot be relaxed: it was not called"):
        relax(Skipping(3), "wide", example_input=X, registry=registry)


def test_a_layer_of_the_family_is_there_already():
    first = relax(network(3, 3), "lcn", example_input=X).model
    with pytest.warns(NoEffectWarning, match="nothing to relax in 0, 1: it is a layer of lcn already"):
        again = relax(first, "lcn", example_input=X).model
    assert torch.equal(again[0].weight, first[0].weight)
    assert again.anarch_relaxations[0] == first.anarch_relaxations[0]
    with pytest.raises(SurgeryError, match="0, 1 cannot be relaxed: it is a layer of lcn, and lcn does not lie inside shared"):
        relax(first, "shared", example_input=X)
    assert type(project(again)[0]) is nn.Conv1d


def test_a_network_without_a_layer_of_its_types_is_told_which_these_are():
    with pytest.warns(NoEffectWarning, match=r"in Sequential \(it takes layers of type ConvNd or RelaxedLayer, and there is none\)"):
        relax(nn.Sequential(nn.Flatten()), "lcn", example_input=X)
    with pytest.warns(NoEffectWarning, match=r"it takes modules with q_proj, k_proj, v_proj or with qkv_proj, and there is none"):
        relax(nn.Sequential(nn.Flatten()), "heads", example_input=X)


def test_layers_that_another_relaxation_made_of_something_else_are_left_to_it():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.block = nn.Conv1d(4, 4, 3), nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.ReLU())

        def forward(self, x):
            return self.block(self.block(self.stem(x)))

    untied = relax(Twice(), "untie", example_input=X)
    assert [layer.path for layer in untied.report.layers] == ["block"]
    report = relax(untied.model, "lcn", example_input=X).report
    assert [layer.path for layer in report.layers] == ["stem"]
    assert report.idle == {"block": "it is a layer of untie, no convolution, and what is inside of it goes with it"}
