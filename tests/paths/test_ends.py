"""The ends of a path are the two networks, buffers and all; what has nothing between is refused by name."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint

from anarch_core.data import TensorData
from anarch_core.errors import ConfigError, ProbeError
from anarch_core.paths.curves import fractions
from anarch_core.paths.interpolation import interpolate
from anarch_core.paths.profile import METHODS, Barrier, Profile
from anarch_core.training.evaluation import Score, evaluate

WEIGHT_SPACE = ("linear", "curvilinear", "string", "band", "bezier", "polygon")


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x, y = torch.randn(60, 1, 8), torch.randint(3, (60,))
    return TensorData(name="toy", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:], classes=3)


class Network(nn.Module):
    """One layer of which everything that is no weight can differ."""

    def __init__(self, seed: int, *, activation=torch.tanh, **buffers: object) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.head = nn.Linear(8, 3)
        self.activation = activation
        self.register_buffer("scale", torch.rand(8) + 0.5)
        self.register_buffer("mask", torch.tensor([0.0, 0.0, -math.inf]), persistent=False)
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.head(x.flatten(1) * self.scale)) + torch.where(self.mask.isinf(), 0.0, self.mask)


def loss(model: nn.Module, data: TensorData, part: str = "train") -> float:
    """Mean cross-entropy by its definition."""
    x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
    with torch.no_grad():
        logarithms = copy.deepcopy(model).eval()(x.to(model.head.weight.dtype)).double().log_softmax(1)
    return -float(sum(row[label] for row, label in zip(logarithms, y, strict=True))) / len(y)


def walk(a: nn.Module, b: nn.Module, data: TensorData, method: str = "linear", **settings) -> Profile:
    return interpolate(a, b, data, method=method, **{"points": 5, "steps": 2, "curve_steps": 2, "batch_size": 20} | settings)


@pytest.mark.parametrize("method", METHODS)
def test_both_ends_are_the_networks_with_their_buffers(data, method) -> None:
    a, b = Network(0), Network(1).train(False)
    profile = walk(a, b, data, method)
    for part, scores in (("train", profile.train), ("test", profile.test)):
        assert scores[0].loss == pytest.approx(loss(a, data, part), rel=1e-6)
        assert scores[-1].loss == pytest.approx(loss(b, data, part), rel=1e-6)


def test_buffers_between_are_mixed_as_the_weights_are(data) -> None:
    a, b = Network(0), Network(1)
    middle = copy.deepcopy(a)
    middle.load_state_dict({name: (tensor + b.state_dict()[name]) / 2 for name, tensor in a.state_dict().items()})
    assert walk(a, b, data).train[2].loss == pytest.approx(loss(middle, data), rel=1e-6)


def test_a_curve_between_equal_weights_descends_with_the_buffers_of_each_point(data) -> None:
    """With steps that are too small to move anything, a curve is the straight line."""
    a, b = Network(0), Network(1)
    straight = [score.loss for score in walk(a, b, data).train]
    for method in ("string", "band", "bezier", "polygon"):
        assert [score.loss for score in walk(a, b, data, method, lr=1e-9, curve_lr=1e-9).train] == pytest.approx(straight, rel=1e-5)


@pytest.mark.parametrize("method", WEIGHT_SPACE)
def test_two_dtypes_meet_in_the_wider_one(data, method) -> None:
    a, b = Network(0), Network(1).double()
    for first, second in ((a, b), (b, a)):
        profile = walk(first, second, data, method)
        assert profile.train[0].loss == pytest.approx(loss(first, data), rel=1e-5)
        assert profile.train[-1].loss == pytest.approx(loss(second, data), rel=1e-5)
    assert next(a.parameters()).dtype == torch.float32
    assert next(b.parameters()).dtype == torch.float64


def test_outputs_of_two_dtypes_are_mixed(data) -> None:
    a, b = Network(0), Network(1).double()
    assert walk(a, b, data, "logits").train[-1].loss == pytest.approx(loss(b, data), rel=1e-9)


@pytest.mark.parametrize(
    ("here", "there", "message"),
    [
        ({"seen": torch.tensor(3)}, {"seen": torch.tensor(4)}, "seen are no real numbers and differ"),
        ({"kept": torch.tensor([True, False])}, {"kept": torch.tensor([True, True])}, "kept are no real numbers and differ"),
        ({"wave": torch.tensor(1j)}, {"wave": torch.tensor(2j)}, "wave are no real numbers and differ"),
        ({"extra": torch.ones(2)}, {}, "only one of the networks has the buffers extra"),
        ({"extra": torch.ones(2)}, {"extra": torch.ones(3)}, "buffers extra are of different shapes"),
        ({"activation": torch.relu}, {"activation": torch.tanh}, "they are not one architecture"),
    ],
)
def test_what_has_nothing_between_is_refused_by_name(data, here, there, message) -> None:
    a, b = Network(0, **here), Network(1, **there)
    for method in WEIGHT_SPACE:
        with pytest.raises(ProbeError, match=message):
            walk(a, b, data, method)
    assert walk(a, b, data, "logits").train[-1].loss == pytest.approx(loss(b, data), rel=1e-6)


def test_equal_buffers_of_any_kind_are_no_hindrance(data) -> None:
    buffers = {"seen": torch.tensor(3), "wave": torch.tensor(1j), "gap": torch.tensor(torch.nan)}
    assert walk(Network(0, **buffers), Network(1, **buffers), data).train_barrier.excess >= 0


def test_the_order_of_registration_does_not_matter(data) -> None:
    class Reversed(Network):
        def __init__(self, seed: int) -> None:
            super().__init__(seed)
            bias, weight = self.head.bias, self.head.weight
            del self.head.bias, self.head.weight
            self.head.bias, self.head.weight = bias, weight

    assert [name for name, _ in Reversed(1).named_parameters()] == ["head.bias", "head.weight"]
    assert walk(Network(0), Reversed(1), data).train[-1].loss == pytest.approx(loss(Reversed(1), data), rel=1e-6)


def test_parameters_that_are_frozen_stay_on_the_straight_line(data, monkeypatch) -> None:
    points = []

    def noted(network: nn.Module, x: torch.Tensor, y: torch.Tensor, **given: object) -> Score:
        points.append([parameter.detach().clone() for parameter in network.parameters()])
        return evaluate(network, x, y)

    monkeypatch.setattr("anarch_core.paths.ground.evaluate", noted)
    a, b = Network(0), Network(1)
    for network in (a, b):
        network.head.bias.requires_grad_(False)
    for method in ("string", "band", "bezier", "polygon"):
        points.clear()
        walk(a, b, data, method, lr=0.2, stiffness=0.01, steps=20, curve_steps=20)
        weight, bias = points[4]  # two evaluations at each point: this is the middle
        if method != "band":
            torch.testing.assert_close(bias, (a.head.bias + b.head.bias) / 2)
        assert not torch.allclose(weight, (a.head.weight + b.head.weight) / 2, atol=1e-3)


def test_tied_weights_are_one_coordinate(data) -> None:
    class Tied(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.one, self.two, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
            self.two.weight = self.one.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(torch.tanh(self.two(torch.tanh(self.one(x.flatten(1))))))

    profile = walk(Tied(0), Tied(1), data, "string")
    assert profile.train[0].loss == pytest.approx(loss(Tied(0), data), rel=1e-5)
    assert profile.train[-1].loss == pytest.approx(loss(Tied(1), data), rel=1e-5)
    untied = Tied(1)
    untied.two.weight = nn.Parameter(untied.one.weight.detach().clone())
    with pytest.raises(ProbeError, match=r"they differ in two\.weight"):
        walk(Tied(0), untied, data)


def test_parameters_that_are_no_real_numbers_have_to_be_equal(data) -> None:
    networks = [Network(0), Network(1), Network(2)]
    for network, value in zip(networks, (3, 3, 4), strict=True):
        network.level = nn.Parameter(torch.tensor(value), requires_grad=False)
    assert walk(networks[0], networks[1], data, "string").train[-1].loss == pytest.approx(loss(networks[1], data), rel=1e-6)
    with pytest.raises(ProbeError, match="level are no real numbers and differ"):
        walk(networks[0], networks[2], data)


def test_devices_and_networks_without_weights_are_told(data) -> None:
    a = Network(0)
    with pytest.raises(ProbeError, match=r"the networks are on meta and the data on cpu; move all"):
        walk(a, Network(1).to("meta"), data)
    bare = nn.Sequential(nn.Flatten(), nn.AvgPool1d(3, 2))
    with pytest.raises(ProbeError, match="have no weights"):
        walk(bare, bare, data)
    with pytest.raises(ConfigError, match=r"gives a tuple of 2 for 40 inputs"):
        walk(Network(0, activation=lambda x: x), _Pair(), data, "logits")
    with pytest.raises(ProbeError, match="finite step size"):
        walk(a, a, data, "string", stiffness=math.inf)


class _Pair(Network):
    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(x), x


def test_a_network_whose_statistics_rest_on_one_sample_is_refused(data) -> None:
    a, b = (nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(12, 3)) for _ in range(2))
    with pytest.raises(ProbeError, match="1 sample is not enough"):
        walk(a, b, data, samples=1)


@pytest.mark.parametrize("at", [0, 2, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_leaves_no_barrier_to_tell(at, value) -> None:
    losses = [1.0, 1.0, 1.0, 1.0, 1.0]
    losses[at] = value
    barrier = Barrier.of(fractions(5), losses)
    assert (barrier.chord, barrier.mean, barrier.excess) == (None, None, None)
    assert barrier.not_measured == f"the loss is not finite at 1 of 5 points, the first of them at {at / 4:.3g}"


def test_a_path_through_what_is_not_finite(data) -> None:
    """The weights of the middle overflow: both networks are finite, and what is between is not."""

    def rooted(x: torch.Tensor) -> torch.Tensor:
        return x / x.abs().sum().gt(1e-3)  # 0 / 0 where all outputs are zero

    a = Network(0, activation=rooted)
    b = copy.deepcopy(a)
    with torch.no_grad():
        for parameter in b.parameters():
            parameter.neg_()
    profile = walk(a, b, data)
    assert math.isnan(profile.train[2].loss)
    assert profile.train[2].accuracy == 0
    assert profile.train_barrier.excess is profile.test_barrier.chord is None
    assert "at 1 of 5 points, the first of them at 0.5" in profile.train_barrier.not_measured
    assert profile.statistics_shift == 0


def test_ends_that_are_not_finite(data) -> None:
    a, b = (nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(12, 3)) for _ in range(2))
    with torch.no_grad():
        b[3].bias.fill_(torch.nan)
    for method in METHODS:
        profile = walk(a, b, data, method)
        assert math.isfinite(profile.train[0].loss)
        assert profile.train_barrier.excess is None
        assert all(math.isfinite(place) for place in profile.positions)
        assert profile.statistics_shift is (None if method in WEIGHT_SPACE else profile.statistics_shift)


def test_a_descent_that_would_not_see_all_weights_is_refused(data) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.head, x.flatten(1).requires_grad_(), use_reentrant=True)

    assert walk(Checkpointed(), Checkpointed(), data).train_barrier.excess >= 0
    for method in ("string", "band", "bezier", "polygon"):
        with pytest.raises(ProbeError, match="under reentrant checkpointing"):
            walk(Checkpointed(), Checkpointed(), data, method)


def test_pruned_networks_that_keep_the_weight_of_a_step_of_training(data) -> None:
    a, b = (prune.l1_unstructured(nn.Linear(8, 3), "weight", 0.5) for _ in range(2))
    a, b = (nn.Sequential(nn.Flatten(), layer) for layer in (a, b.double()))
    for network in (a, b):
        network(data.x_train.to(network[1].bias.dtype)).sum().backward()
    b[1].weight_mask = a[1].weight_mask.double()
    expected = nn.functional.cross_entropy(a(data.x_train), data.y_train).item()
    for method in METHODS:
        assert walk(a, b, data, method).train[0].loss == pytest.approx(expected, rel=1e-5)
