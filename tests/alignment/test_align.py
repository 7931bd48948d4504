"""Permuting a network so that it is near another one."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anarch_core.alignment import align, symmetries
from anarch_core.alignment.matching import Matching
from anarch_core.alignment.slots import parts
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.paths import interpolate
from tests.alignment.networks import difference, distance, equal, network, permuted, tensors
from tests.alignment.test_symmetries import NETWORKS, Written


@pytest.mark.parametrize(("name", "relaxation"), NETWORKS)
def test_a_permuted_copy_is_recovered_to_the_bit(name: str, relaxation: str | None) -> None:
    model, x = network(name, relaxation)
    found = align(permuted(model, x), model, x)
    assert found.before > 0
    assert found.after == 0
    assert equal(found.network, model)


@pytest.mark.parametrize(("name", "relaxation"), NETWORKS)
def test_a_network_aligned_with_itself_stays_as_it_is_to_the_bit(name: str, relaxation: str | None) -> None:
    model, x = network(name, relaxation)
    found = align(model, model, x)
    assert found.moved == 0
    assert equal(found.network, model)


@pytest.mark.parametrize(
    ("name", "relaxation"), [("cnn1d", None), ("cnn1d", "efcn"), ("resnet20", None), ("separable", None), ("pruned-mlp", None)]
)
def test_there_is_no_barrier_to_a_permuted_copy(name: str, relaxation: str | None) -> None:
    model, x = network(name, relaxation)
    data = TensorData(name="toy", x_train=x, y_train=torch.arange(3), x_test=x, y_test=torch.arange(3), classes=3)
    other = permuted(model, x)
    apart = interpolate(other, model, data, points=5).train
    profile = interpolate(align(other, model, x).network, model, data, points=5).train
    losses = [score.loss for score in profile]
    assert max(losses) - min(losses) < 1e-10
    assert max(score.loss for score in apart) - min(score.loss for score in apart) > 1e-4


@pytest.mark.parametrize("seed", range(6))
def test_one_hidden_layer_is_matched_as_well_as_by_any_permutation(seed: int) -> None:
    torch.manual_seed(seed)
    a, b = (nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)).double() for _ in range(2))

    def permuted_by(order: tuple[int, ...]) -> float:
        rows = list(order)
        pairs = [
            (a[0].weight[rows], b[0].weight),
            (a[0].bias[rows], b[0].bias),
            (a[2].weight[:, rows], b[2].weight),
            (a[2].bias, b[2].bias),
        ]
        return sum(float((mine - theirs).detach().square().sum()) for mine, theirs in pairs) ** 0.5

    least = min(permuted_by(order) for order in itertools.permutations(range(5)))
    assert align(a, b, torch.randn(2, 3, dtype=torch.float64)).after == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("name", ["cnn1d", "separable", "pruned-mlp"])
@pytest.mark.parametrize("relaxation", [None, "efcn"])
def test_networks_of_different_seeds_come_nearer_and_compute_what_they_did(name: str, relaxation: str | None) -> None:
    if name == "pruned-mlp" and relaxation:
        relaxation = None
    (model, x), (to, _) = (network(name, relaxation, seed=seed) for seed in (0, 1))
    found = align(model, to, x)
    assert found.before == pytest.approx(distance(model, to), abs=1e-10)
    assert found.after == pytest.approx(distance(found.network, to), abs=1e-10)
    assert found.after < found.before
    assert difference(model, found.network, x) < 1e-12
    assert sum(layer.after**2 for layer in found.layers.values()) == pytest.approx(found.after**2)


def test_it_is_deterministic_and_more_restarts_are_not_worse() -> None:
    (model, x), (to, _) = (network("cnn1d", seed=seed) for seed in (0, 1))
    first, again, more = (align(model, to, x, seed=3, restarts=restarts) for restarts in (0, 0, 4))
    assert equal(first.network, again.network)
    assert more.after <= first.after
    assert (len(first.sweeps), len(more.sweeps)) == (2, 6)


def test_the_result_is_the_permutation_that_it_tells() -> None:
    (model, x), (to, _) = (network("cnn1d", seed=seed) for seed in (0, 1))
    found = align(model, to, x)
    order = found.permutations["features.0"]
    first = found.network.get_submodule("features.0")
    assert sorted(order.tolist()) == list(range(5))
    assert torch.equal(first.weight, model.get_submodule("features.0").weight[order])


def test_masked_weights_are_measured_as_the_network_computes_with_them() -> None:
    (model, x), (to, _) = (network("pruned-mlp", seed=seed, pruned=0.5, mask="random") for seed in (0, 1))
    found = align(model, to, x)
    effective = [(found.network.get_submodule(name), to.get_submodule(name)) for name in ("linear1", "linear2", "linear3")]
    with torch.no_grad():
        squares = [
            ((a.weight_orig * a.weight_mask - b.weight_orig * b.weight_mask).square().sum() + (a.bias - b.bias).square().sum())
            for a, b in effective
        ]
    assert found.after == pytest.approx(float(sum(squares)) ** 0.5, abs=1e-12)


def test_products_by_pieces_are_those_of_whole_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    (model, x), (to, _) = (network("cnn1d", "efcn", seed=seed) for seed in (0, 1))
    groups = symmetries(model, x).groups
    matching = Matching(groups=groups, mine=tensors(model), theirs=tensors(to), parameters=frozenset(tensors(model)))
    uses = [use for group in groups for use in group.uses]
    whole = [matching._all_products(use) for use in uses]
    monkeypatch.setattr("anarch_core.alignment.slots.AT_ONCE", 64)
    assert len(list(parts(tensors(model)["features.2.weight"], 0))) > 10
    for use, expected in zip(uses, whole, strict=True):
        np.testing.assert_allclose(matching._all_products(use), expected, rtol=0, atol=1e-12)


def layers(draw: st.DrawFn) -> tuple[nn.Sequential, torch.Tensor]:
    """Convolutions with what may lie between them, and a head."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    channels, size = draw(st.integers(1, 3)), 9
    shape = (2, channels, size)
    modules: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        width = draw(st.integers(2, 6))
        modules.append(nn.Conv1d(channels, width, draw(st.sampled_from([1, 3])), padding=1, bias=draw(st.booleans())))
        channels = width
        between = {
            "norm": nn.BatchNorm1d(channels),
            "relu": nn.ReLU(),
            "gelu": nn.GELU(),
            "group": nn.GroupNorm(1, channels),
            "depthwise": nn.Conv1d(channels, channels, 3, padding=1, groups=channels),
            "pool": nn.AvgPool1d(3, stride=1, padding=1),
            "prelu": nn.PReLU(channels),
        }
        modules += [between[name] for name in draw(st.lists(st.sampled_from(sorted(between)), max_size=3, unique=True))]
    features = nn.Sequential(*modules)
    x = torch.randn(shape, dtype=torch.float64)
    features.double().eval()
    with torch.no_grad():
        for tensor in tensors(features).values():
            if tensor.is_floating_point():
                tensor.copy_(0.5 + torch.rand(tensor.shape, dtype=torch.float64))
        flat = features(x).flatten(1).shape[1]
    return nn.Sequential(features, nn.Flatten(), nn.Linear(flat, 3).double()).eval(), x


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_random_networks_compute_the_same_when_permuted_and_are_matched_back(data: st.DataObject) -> None:
    model, x = data.draw(st.composite(layers)())
    other = permuted(model, x, seed=data.draw(st.integers(0, 100)))
    assert difference(model, other, x) < 1e-10
    assert equal(align(other, model, x).network, model)


def test_a_network_with_branches_is_recovered() -> None:
    torch.manual_seed(0)
    model, x = Written().double().eval(), torch.randn(3, 2, 7, 7, dtype=torch.float64)
    assert equal(align(permuted(model, x), model, x).network, model)


def test_networks_of_different_architectures_are_refused() -> None:
    model, x = network("cnn1d")
    with pytest.raises(ProbeError, match=r"not of one architecture, they differ in .*features\.0\.weight"):
        align(model, network("cnn1d", channels=4)[0], x)


def test_a_network_without_hidden_channels_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    with pytest.raises(ProbeError, match="no channels that can be permuted; compare it as it is"):
        align(model, model, torch.randn(2, 1, 6))


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    (model, x), (to, _) = (network("cnn1d", seed=seed) for seed in (0, 1))
    with torch.no_grad():
        to.get_submodule("features.2").weight[0, 0, 0] = float("nan")
    with pytest.raises(ProbeError, match=r"channels of features\.\d are not finite"):
        align(model, to, x)


def test_a_network_that_depends_on_the_order_in_hidden_ways_is_refused() -> None:
    """Numbers that a module holds outside of its parameters cannot be seen to belong to channels where they are put by hand."""

    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scale = SimpleNamespace(values=[float(place) for place in range(x.shape[1])])
            return torch.cat([x[:, place : place + 1] * value for place, value in enumerate(scale.values)], dim=1)

    torch.manual_seed(0)
    a, b = (nn.Sequential(nn.Linear(3, 5), Odd(), nn.Linear(5, 2)).double() for _ in range(2))
    with pytest.raises(ProbeError, match="computes something else when the channels of 0 are permuted"):
        align(a, b, torch.randn(2, 3, dtype=torch.float64))


def test_it_shows_itself() -> None:
    (model, x), (to, _) = (network("cnn1d", seed=seed) for seed in (0, 1))
    found = align(model, to, x)
    assert "features.2" in str(found)
    assert f"{found.moved} of 15 channels moved, in 3 groups" in str(found)
