"""Relaxing whole networks: any graph, any mode; what is not understood is refused by name."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.errors import NoEffectWarning, OptionError, OutOfMemoryError, SurgeryError, UnknownComponentError
from anarch_core.relaxation.verbs import applied_relaxations, drift, initialise_relaxed, plan, project, reapply, relax

ALL = ["efcn", "lcn", "shared", "tiled"]


class Residual(nn.Module):
    """Batch norm, a skip connection, and one convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 6, (3, 1), stride=(2, 1))
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = x + torch.relu(self.twice(torch.relu(self.twice(x))))
        return self.head(self.down(x).mean((2, 3)))


def network(dtype: torch.dtype = torch.float64) -> Residual:
    torch.manual_seed(0)
    model = Residual().to(dtype)
    nn.init.uniform_(model.norm.running_mean, -1, 1)
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    return model


def example(dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(2, 3, 7, 6, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ALL)
def test_a_residual_batch_norm_network_agrees_with_its_parent(name):
    model, x = network(), example()
    relaxed = relax(model, name, example_input=x)
    assert [layer.path for layer in relaxed.report.layers] == ["stem", "twice", "down"]
    assert relaxed.report.exact
    assert relaxed.report.error < 1e-12
    for mode in (False, True):  # training moves the running statistics, so it comes last
        torch.testing.assert_close(relaxed.model.train(mode)(x), copy.deepcopy(model).train(mode)(x), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lcn", "shared", "tiled"])
def test_torchvision_resnet18_agrees_with_its_parent_and_comes_back(name):
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    torch.manual_seed(0)
    model = models.resnet18(num_classes=10).double()
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    relaxed = relax(model, name, example_input=x)
    assert len(relaxed.report.layers) == 20
    assert relaxed.report.error < 1e-10
    for before, after in zip(model.state_dict().values(), project(relaxed.model).state_dict().values(), strict=True):
        torch.testing.assert_close(after, before, rtol=1e-12, atol=1e-14)


@pytest.mark.slow
def test_torchvision_resnet18_as_fully_connected_layers():
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    torch.manual_seed(0)
    model = models.resnet18(num_classes=10).double()
    relaxed = relax(model, "efcn", example_input=torch.randn(1, 3, 16, 16, dtype=torch.float64))
    assert relaxed.report.error < 1e-10


def test_the_parent_is_left_as_it_was():
    model, x = network().train(), example()
    model.head.eval()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    relax(model, "lcn", example_input=x)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [m.training for m in (model, model.norm, model.head)] == [True, True, False]
    assert torch.equal(torch.get_rng_state(), state)
    assert applied_relaxations(model) == ()


def test_a_convolution_used_twice_stays_one_layer():
    relaxed = relax(network(), "lcn", example_input=example())
    shared = nn.ModuleDict({"a": nn.Conv1d(2, 2, 3, padding=1)})
    shared["b"] = shared["a"]

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = shared

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers["b"](self.layers["a"](x))

    tied = relax(Twice(), "efcn", example_input=torch.randn(2, 2, 5)).model
    assert tied.layers["a"] is tied.layers["b"]
    assert sum(1 for _ in relaxed.model.modules()) == sum(1 for _ in network().modules())


def test_modes_dtypes_and_frozen_parameters_are_kept():
    model, x = network(torch.float32).eval(), example(torch.float32)
    model.stem.weight.requires_grad_(False)
    relaxed = relax(model, "efcn", example_input=x).model
    assert not relaxed.stem.training
    assert not relaxed.stem.weight.requires_grad
    assert relaxed.twice.weight.requires_grad
    assert {p.dtype for p in relaxed.parameters()} == {torch.float32}


def test_layers_are_chosen_by_pattern():
    model, x = network(), example()
    assert [layer.path for layer in relax(model, "lcn", example_input=x, layers="s*").report.layers] == ["stem"]
    assert [layer.path for layer in relax(model, "lcn", example_input=x, layers=["*", "!stem"]).report.layers] == ["twice", "down"]
    with pytest.raises(SurgeryError, match="the list of patterns is empty"):
        relax(model, "lcn", example_input=x, layers=[])
    with pytest.raises(SurgeryError, match="'stemm' matches none of stem, twice, down; did you mean 'stem'"):
        relax(model, "lcn", example_input=x, layers="stemm")


def test_parameter_map_is_total():
    model = network()
    relaxed = relax(model, "tiled", example_input=example())
    assert set(relaxed.parameter_map) == {name for name, _ in model.named_parameters()}
    assert all(relaxed.parameter_map.values())


class Sizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).mean() + self.conv(x[..., ::2]).mean()


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Conv2d(1, 1, 3)
        self.idle = nn.Conv2d(1, 1, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x))


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(1, 1, 3))
    model[0].register_forward_hook(lambda *_: None)
    return model


REFUSED = {
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(1, 1, 3)), "0 cannot be relaxed: it is a ConvTranspose2d"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(1, 3)), "0 cannot be relaxed: it is lazy"),
    "two sizes": (Sizes, "conv cannot be relaxed: it is called with 2 different input sizes"),
    "not called": (Idle, "idle cannot be relaxed: it was not called"),
    "tied": (Tied, "a cannot be relaxed: it shares a parameter with b"),
    "parametrized": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3))),
        "0 cannot be relaxed: it is parametrized",
    ),
    "hooked": (hooked, "0 cannot be relaxed: it has hooks"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_understood_is_refused_by_path(case):
    build, message = REFUSED[case]
    with pytest.raises(SurgeryError, match=message) as caught:
        relax(build(), "efcn", example_input=torch.randn(1, 1, 8, 8))
    assert caught.value.paths
    assert "\n" not in str(caught.value)


def test_a_layer_can_be_excluded_from_refusal():
    relaxed = relax(Idle(), "efcn", example_input=torch.randn(1, 1, 8, 8), layers=["*", "!idle"])
    assert [layer.path for layer in relaxed.report.layers] == ["used"]


def test_wrapped_networks_and_bad_examples_are_refused():
    model, x = network(), example()
    with pytest.raises(SurgeryError, match=r"relax model\.module"):
        relax(nn.DataParallel(model), "efcn", example_input=x)
    with pytest.raises(SurgeryError, match=r"does not accept the example input \(\[2, 9, 7, 6\] float64\)"):
        relax(model, "efcn", example_input=torch.randn(2, 9, 7, 6, dtype=torch.float64))
    with pytest.raises(UnknownComponentError, match="did you mean 'efcn'"):
        relax(model, "efnc", example_input=x)
    with pytest.raises(OptionError, match="period"):
        relax(model, "tiled", example_input=x, options={"period": 0})
    with pytest.warns(NoEffectWarning):
        relax(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "efcn", example_input=torch.randn(1, 4))


def test_more_memory_than_there_is_is_refused_before_anything_is_allocated():
    model = nn.Sequential(nn.Conv2d(3, 512, 3, padding=1))
    x = torch.randn(1, 3, 256, 256)
    with pytest.raises(OutOfMemoryError, match=r"efcn of 1 layer\(s\) needs 2[0-9.]+ TB .* free on cpu") as caught:
        relax(model, "efcn", example_input=x)
    assert caught.value.needed == 4 * 512 * 256**2 * (3 * 256**2 + 1)
    assert plan(model, "efcn", example_input=x).bytes == caught.value.needed


def test_the_root_module_itself_can_be_a_convolution():
    conv, x = nn.Conv1d(1, 2, 3), torch.randn(1, 1, 9)
    relaxed = relax(conv, "lcn", example_input=x)
    torch.testing.assert_close(relaxed.model(x), conv(x))
    assert type(project(relaxed.model)) is nn.Conv1d


def test_staged_relaxation_and_the_record_it_leaves():
    model, x = network(), example()
    first = relax(model, "lcn", example_input=x, layers="stem").model
    second = relax(first, "efcn", example_input=x)
    torch.testing.assert_close(second.model(x), copy.deepcopy(model)(x), rtol=1e-10, atol=1e-12)
    records = applied_relaxations(second.model)
    assert [(r.name, list(r.layers)) for r in records] == [("lcn", ["stem"]), ("efcn", ["stem", "twice", "down"])]
    again = reapply(network(), records)
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in second.model.named_parameters()}
    partly = project(second.model, layers="stem")
    assert type(partly.stem) is nn.Conv2d
    assert [list(r.layers) for r in applied_relaxations(partly)] == [["twice", "down"]]
    assert applied_relaxations(project(second.model)) == ()


def test_layers_that_the_relaxation_made_before_stay_as_they_are():
    model, x = network(), example()
    first = relax(model, "tiled", example_input=x, layers="stem", options={"period": 3}).model
    with torch.no_grad():
        for parameter in first.stem.parameters():
            parameter.add_(torch.randn_like(parameter))
    second = relax(first, "tiled", example_input=x, options={"period": 3})
    assert second.report.kept == ["stem"]
    assert [layer.path for layer in second.report.layers] == ["twice", "down"]
    assert second.report.exact
    assert torch.equal(second.model.stem.weight, first.stem.weight)
    assert second.parameter_map["stem.weight"] == ("stem.weight",)
    assert [list(r.layers) for r in applied_relaxations(second.model)] == [["stem"], ["twice", "down"]]
    again = relax(project(second.model, layers="stem"), "tiled", example_input=x, options={"period": 3})
    assert again.report.kept == ["twice", "down"]


def test_a_layer_of_the_same_relaxation_with_other_options_moves_on():
    model, x = network(), example()
    first = relax(model, "tiled", example_input=x, layers="stem", options={"period": 2}).model
    second = relax(first, "tiled", example_input=x, options={"period": 4})
    assert not second.report.kept
    assert [layer.path for layer in second.report.layers] == ["stem", "twice", "down"]


def test_projecting_or_measuring_an_unrelaxed_network_says_so():
    with pytest.raises(SurgeryError, match="has no relaxed layer to project"):
        project(network())
    with pytest.raises(SurgeryError, match="nothing can have drifted"):
        drift(network())


def test_drift_against_an_earlier_moment():
    relaxed = relax(network(), "efcn", example_input=example()).model
    later = copy.deepcopy(relaxed)
    assert drift(later, relaxed).total.moved == 0
    initialise_relaxed(later)
    total = drift(later, relaxed).total
    assert total.moved > 0
    assert total.initial is not None
    assert total.off_local / total.total == pytest.approx(total.initial[2] / sum(total.initial), abs=0.02)


@pytest.mark.slow
def test_published_sizes_of_the_vanilla_cnn():
    """d'Ascoli et al. 2019: m = 143,178; as an eFCN without padded columns 73.9 M in the convolutions; δ of a random FCN 0.9613."""
    from anarch_core.models import build_model
    from anarch_core.plugin.registry import get_registry

    model = build_model("vanilla-cnn", input_shape=(3, 32, 32), classes=10, options={}, seed=0, registry=get_registry())
    assert sum(p.numel() for p in model.parameters()) == 143_178
    relaxed = relax(model, "efcn", example_input=torch.randn(2, 3, 32, 32)).model
    assert sum(p.numel() for name, p in relaxed.named_parameters() if name.startswith("features")) == 73_951_872
    initialise_relaxed(relaxed)
    total = drift(relaxed).total
    assert (total.off_local / total.total) ** 0.5 == pytest.approx(0.9613, abs=1e-4)
    assert (total.initial[2] / sum(total.initial)) ** 0.5 == pytest.approx(0.96126, abs=1e-5)


def test_public_names():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert anarch_core.relax is relax
        assert {"relax", "project", "drift", "load", "save"} <= set(dir(anarch_core))
    with pytest.raises(AttributeError, match="no attribute 'relx'"):
        anarch_core.relx  # noqa: B018
