"""Layers that move alone: what a layer is, where the others stay, and the barrier of each."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.paths import interpolate, layer_by_layer
from anarch_core.paths.chosen_layers import chosen_layers
from anarch_core.paths.ends import ends
from anarch_core.paths.landscape import refresh_batch_norm
from anarch_core.training.evaluation import evaluate


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(60, 1, 8, dtype=torch.float64), torch.randint(3, (60,))
    return TensorData(name="toy", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:], classes=3)


def network(seed: int, *, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv1d(1, 3, 3, padding=1), *([nn.BatchNorm1d(3)] if norm else []), nn.Tanh(), nn.Flatten(), nn.Linear(24, 3)]
    model = nn.Sequential(*layers).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model.eval()


def by_hand(a: nn.Module, b: nn.Module, layer: str, t: float, *, rest: str) -> nn.Module:
    """One layer mixed, all else of one of the networks."""
    model = copy.deepcopy(a if rest == "first" else b)
    mixed = model.get_submodule(layer)
    for name, parameter in mixed.named_parameters():
        one, other = (each.get_submodule(layer).get_parameter(name).detach() for each in (a, b))
        parameter.data.copy_((1 - t) * one + t * other)
    return model


@pytest.mark.parametrize("rest", ["first", "second"])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("layer", ["0", "-1"])
def test_a_layer_that_moves_alone_is_that_layer_mixed_by_hand(data, rest, norm, layer) -> None:
    a, b = network(0, norm=norm), network(1, norm=norm)
    layer = layer if layer == "0" else str(len(a) - 1)
    found = interpolate(a, b, data, layers=layer, rest=rest, points=5)
    for index, score in enumerate(found.train):
        expected = by_hand(a, b, layer, index / 4, rest=rest)
        if norm:
            refresh_batch_norm(expected, data.x_train)
        assert score.loss == pytest.approx(evaluate(expected, data.x_train, data.y_train).loss, rel=1e-12)
    assert found.positions == [0, 0.25, 0.5, 0.75, 1]


@pytest.mark.parametrize("method", ["linear", "curvilinear", "string", "band", "bezier", "polygon"])
def test_all_layers_together_are_the_whole_path(data, method) -> None:
    a, b = network(0, norm=True), network(1, norm=True)
    settings = {"method": method, "points": 4, "steps": 3, "curve_steps": 3, "batch_size": 20}
    whole = [score.loss for score in interpolate(a, b, data, **settings).train]
    for rest in ("first", "second"):
        assert [score.loss for score in interpolate(a, b, data, layers="*", rest=rest, **settings).train] == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("method", ["string", "band", "bezier", "polygon"])
def test_descent_moves_nothing_but_the_chosen_layers(data, method, monkeypatch) -> None:
    points = []

    def noted(network: nn.Module, *given: object, **settings: object) -> object:
        points.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return evaluate(network, *given, **settings)

    monkeypatch.setattr("anarch_core.paths.ground.evaluate", noted)
    a, b = network(0), network(1)
    interpolate(a, b, data, method=method, layers="0", rest="second", points=5, steps=5, curve_steps=5, lr=0.2, stiffness=0.01)
    for state in points:
        assert torch.equal(state["3.weight"], b[3].weight)
        assert torch.equal(state["3.bias"], b[3].bias)
    middle = points[4]["0.weight"]  # two evaluations at each point
    assert not torch.allclose(middle, (a[0].weight + b[0].weight) / 2, atol=1e-3)


def test_buffers_move_with_their_layer(data) -> None:
    class Scaled(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.inner, self.head = nn.Linear(8, 8).double(), nn.Linear(8, 3).double()
            self.inner.register_buffer("scale", torch.rand(8).double())
            self.head.register_buffer("shift", torch.rand(3).double())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.inner(x.flatten(1)) * self.inner.scale)) + self.head.shift

    a, b = Scaled(0), Scaled(1)
    expected = copy.deepcopy(a)
    expected.inner.load_state_dict({name: (tensor + b.inner.state_dict()[name]) / 2 for name, tensor in a.inner.state_dict().items()})
    found = interpolate(a, b, data, layers="inner", points=3).train[1].loss
    assert found == pytest.approx(evaluate(expected, data.x_train, data.y_train).loss, rel=1e-12)


def test_relaxed_parametrized_and_tied_layers_are_one_each(data) -> None:
    class Tied(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.conv = parametrizations.weight_norm(nn.Conv1d(1, 1, 3, padding=1))
            self.free = nn.Conv1d(1, 1, 3, padding=1)
            self.one, self.two, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.two(torch.tanh(self.one(self.free(self.conv(x)).flatten(1))))))

    a, b = (relax(Tied(seed), "efcn", layers="free", example_input=torch.zeros(2, 1, 8)).model for seed in (0, 1))
    found = chosen_layers(ends(a, b), "*")
    assert list(found) == ["conv", "free", "one", "head"]
    assert found["one"] == {"one.weight", "one.bias", "two.bias"} == chosen_layers(ends(a, b), "two")["one"]
    assert found["conv"] == {"conv.bias", "conv.parametrizations.weight.original0", "conv.parametrizations.weight.original1"}
    assert frozenset().union(*found.values()) == {name for name, _ in a.named_parameters()}
    assert list(chosen_layers(ends(a, b), ["*", "!head"])) == ["conv", "free", "one"]


def test_the_more_constrained_network_is_lifted_before_a_layer_moves(data) -> None:
    cnn = network(0)
    efcn = relax(network(1), "efcn", example_input=data.x_train[:1]).model
    losses = [score.loss for score in interpolate(cnn, efcn, data, layers="3", points=3).train]
    plain = [score.loss for score in interpolate(cnn, network(1), data, layers="3", points=3).train]
    assert losses == pytest.approx(plain, rel=1e-10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "features.*"}, r"layer pattern 'features\.\*' matches none of 0, 3"),
        ({"layers": []}, "no layer is chosen"),
        ({"layers": ["*", "!*"]}, "leave none to move of 0, 3"),
        ({"layers": "0", "rest": "third"}, "are of the first or second network, got 'third'"),
        ({"layers": "0", "method": "logits"}, "logits mixes what whole networks say"),
    ],
)
def test_what_cannot_move_is_refused(data, settings, message) -> None:
    with pytest.raises(ProbeError, match=message):
        interpolate(network(0), network(1), data, **settings)


@pytest.mark.parametrize("rest", ["first", "second"])
def test_each_layer_has_a_path_and_is_averaged(data, rest) -> None:
    a, b = network(0, norm=True), network(1, norm=True)
    found = layer_by_layer(a, b, data, rest=rest, points=5)
    assert list(found.layers) == ["0", "1", "4"]
    assert [layer.size for layer in found.layers.values()] == [12, 6, 75]
    for part in ("train", "test"):
        whole = [score.loss for score in getattr(interpolate(a, b, data, points=3), part)]
        for path, layer in found.layers.items():
            alone = interpolate(a, b, data, layers=path, rest=rest, points=5)
            losses = [score.loss for score in getattr(alone, part)]
            assert [score.loss for score in getattr(layer.profile, part)] == losses
            assert getattr(layer, part) == pytest.approx(losses[2] - (whole[0] + whole[2]) / 2, rel=1e-12)
            assert losses[0 if rest == "first" else -1] == pytest.approx(whole[0 if rest == "first" else 2], rel=1e-12)
            assert layer.profile.statistics_shift == alone.statistics_shift
    assert layer.swapped == layer.profile.train[-1 if rest == "first" else 0].loss
    assert f"with the others of the {rest} network" in str(found)


def test_of_equal_networks_no_layer_has_a_barrier(data) -> None:
    for layer in layer_by_layer(network(0), network(0), data, points=3).layers.values():
        assert layer.train == pytest.approx(0, abs=1e-12)
        assert layer.profile.train_barrier.excess == pytest.approx(0, abs=1e-12)


def test_what_is_not_finite_leaves_no_barrier_of_a_layer(data) -> None:
    a, b = network(0), network(1)
    with torch.no_grad():
        b[3].bias.fill_(torch.nan)
    found = layer_by_layer(a, b, data, points=3).layers
    assert found["0"].profile.train_barrier.chord is not None
    assert found["0"].train is found["3"].train is found["3"].swapped is found["3"].profile.train_barrier.chord is None


def test_a_layer_is_averaged_at_a_point_of_its_path(data) -> None:
    with pytest.raises(ProbeError, match="none of 4 points; take an odd number"):
        layer_by_layer(network(0), network(1), data, points=4)
