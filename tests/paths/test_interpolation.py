from __future__ import annotations

import copy
import functools
import itertools

import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.paths.common import common_architecture
from anarch_core.paths.curves import straight
from anarch_core.paths.interpolation import interpolate
from anarch_core.paths.landscape import Landscape, refresh_batch_norm
from anarch_core.paths.profile import METHODS, Barrier
from anarch_core.training.evaluation import evaluate


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x = torch.randn(90, 1, 10)
    y = (x[:, 0, 2] > 0).long() + (x[:, 0, 7] > 0).long()
    return TensorData(name="toy", x_train=x[:60], y_train=y[:60], x_test=x[60:], y_test=y[60:], classes=3)


def trained(data: TensorData, seed: int, *, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv1d(1, 3, 3, padding=1), *([nn.BatchNorm1d(3)] if norm else []), nn.ReLU(), nn.Flatten(), nn.Linear(30, 3)]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x_train), data.y_train).backward()
        optimizer.step()
    model.zero_grad()
    return model


@pytest.mark.parametrize("method", METHODS)
def test_the_ends_of_every_path_are_the_networks(data, method) -> None:
    a, b = trained(data, 0), trained(data, 1)
    profile = interpolate(
        a, relax(b, "efcn", example_input=data.x_train[:1]).model, data, method=method, points=4, steps=3, curve_steps=3, batch_size=20
    )
    for model, at in ((a, 0), (b, -1)):
        assert profile.train[at].loss == pytest.approx(evaluate(model, data.x_train, data.y_train).loss, rel=1e-4)
        assert profile.test[at].accuracy == pytest.approx(evaluate(model, data.x_test, data.y_test).accuracy)
    assert profile.positions[0] == 0
    assert profile.positions[-1] == pytest.approx(1)
    assert profile.statistics_shift == 0


@pytest.mark.parametrize("method", ["logits", "probabilities"])
def test_output_space_has_no_barrier(data, method) -> None:
    profile = interpolate(trained(data, 0), trained(data, 1), data, method=method)
    assert profile.train_barrier.chord <= 1e-9
    assert profile.test_barrier.excess <= 1e-9


def test_a_string_falls_below_the_straight_line(data) -> None:
    a, b = trained(data, 0), trained(data, 1)
    straight = interpolate(a, b, data, points=7)
    fallen = interpolate(a, b, data, points=7, method="string", stiffness=0.01, lr=0.2, steps=100, batch_size=60)
    band = interpolate(a, b, data, points=7, method="band", stiffness=0.1, lr=0.2, steps=100, batch_size=60)
    assert straight.train_barrier.excess > 0.05
    assert fallen.train_barrier.excess < 0.5 * straight.train_barrier.excess
    assert band.train_barrier.excess < 0.5 * straight.train_barrier.excess


@pytest.mark.parametrize("method", ["bezier", "polygon"])
@pytest.mark.parametrize("norm", [False, True])
def test_a_trained_curve_has_no_barrier_where_the_straight_line_has_one(data, method, norm) -> None:
    """As Garipov et al. 2018 find it between networks that were trained on their own."""
    a, b = trained(data, 0, norm=norm), trained(data, 1, norm=norm)
    settings = {"points": 7, "curve_steps": 100, "curve_lr": 0.05, "batch_size": 60}
    curve = interpolate(a, b, data, method=method, **settings)
    assert interpolate(a, b, data, points=7).train_barrier.excess > 0.05
    assert curve.train_barrier.excess < 0.01
    again = interpolate(a, b, data, method=method, **settings)
    assert [score.loss for score in curve.train] == [score.loss for score in again.train]
    other = interpolate(a, b, data, method=method, seed=1, **settings)
    assert [score.loss for score in curve.train[1:-1]] != [score.loss for score in other.train[1:-1]]


def test_positions_are_the_length_that_is_behind(data) -> None:
    """A chain of two straight pieces is walked at one speed on each; a Bezier curve is slowest in the middle."""
    a, b = trained(data, 0), trained(data, 1)
    polygon = interpolate(a, b, data, method="polygon", points=9, curve_steps=50, curve_lr=0.05).positions
    steps = [after - before for before, after in itertools.pairwise(polygon)]
    assert steps == pytest.approx([steps[0]] * 4 + [steps[-1]] * 4, rel=1e-4)
    bezier = interpolate(a, b, data, method="bezier", points=9, curve_steps=50, curve_lr=0.05).positions
    steps = [after - before for before, after in itertools.pairwise(bezier)]
    assert steps[0] > steps[3]
    assert steps[-1] > steps[4]
    assert interpolate(a, b, data, points=5).positions == [0, 0.25, 0.5, 0.75, 1]


def test_barriers_by_three_definitions() -> None:
    barrier = Barrier.of([0, 0.5, 1], [1.0, 3.0, 2.0])
    assert (barrier.chord, barrier.mean, barrier.excess) == (1.5, 1.5, 1.0)
    downhill = Barrier.of([0, 0.5, 1], [2.0, 1.0, 0.0])
    assert (downhill.chord, downhill.mean, downhill.excess) == (0, 1, 0)


@pytest.mark.parametrize(
    ("one", "other"), [(None, "efcn"), ("lcn", None), ("lcn", "efcn"), ("lcn", "shared"), ("tiled", "lcn"), ("efcn", "efcn")]
)
def test_two_networks_meet_in_the_smallest_family_that_holds_both(data, one, other) -> None:
    cnn = trained(data, 0)
    networks = [cnn if name is None else relax(cnn, name, example_input=data.x_train[:1]).model for name in (one, other)]
    lifted = common_architecture(*networks)
    shapes = [[tuple(parameter.shape) for parameter in model.parameters()] for model in lifted]
    assert shapes[0] == shapes[1]
    for model in lifted:
        torch.testing.assert_close(model.eval()(data.x_test), cnn.eval()(data.x_test), atol=1e-5, rtol=1e-4)


def test_different_networks_have_nothing_between_them(data) -> None:
    with pytest.raises(ProbeError, match=r"cannot be lifted to a common one; they differ in 0.bias"):
        interpolate(trained(data, 0), nn.Sequential(nn.Flatten(), nn.Linear(10, 3)), data)


def test_batch_norm_statistics_are_those_of_the_point(data) -> None:
    a, b = trained(data, 0, norm=True), trained(data, 1, norm=True)
    landscape = Landscape(a, data.x_train)
    network = landscape.go(functools.partial(straight, landscape.weights(a), landscape.weights(b), 0.5))
    hidden = network[0](data.x_train)
    torch.testing.assert_close(network[1].running_mean, hidden.mean((0, 2)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network[1].running_var, hidden.var((0, 2)), rtol=1e-4, atol=1e-5)
    profile = interpolate(a, b, data, points=3)
    assert 0 < profile.statistics_shift < 0.5


def test_refreshing_statistics_leaves_dropout_off_and_momentum_as_it_was(data) -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(1, momentum=0.3))
    refresh_batch_norm(model, data.x_train)
    torch.testing.assert_close(model[1].running_mean, data.x_train.mean((0, 2)), rtol=1e-4, atol=1e-5)
    assert model[1].momentum == 0.3
    assert not model[1].training


def test_networks_stay_as_they_were(data) -> None:
    a, b = trained(data, 0, norm=True), trained(data, 1, norm=True)
    kept = [copy.deepcopy(model.state_dict()) for model in (a, b)]
    state = torch.get_rng_state()
    for method in ("string", "logits"):
        interpolate(a, b, data, method=method, points=3, steps=2)
    assert torch.equal(torch.get_rng_state(), state)
    for model, before in zip((a, b), kept, strict=True):
        assert model.training
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])


def test_what_is_no_path_is_refused(data) -> None:
    a = trained(data, 0)
    with pytest.raises(ProbeError, match="from 3 to 10,000 points, got 'linear' and 2"):
        interpolate(a, a, data, points=2)
