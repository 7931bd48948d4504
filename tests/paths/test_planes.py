"""The plane through three networks against closed forms, networks made by hand, and the straight paths between them."""

from __future__ import annotations

import copy
import itertools
import math

import attrs
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from anarch_core import project, relax
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.paths import NoPlaneError, Plane, interpolate, plane
from anarch_core.paths.surface import limited
from anarch_core.paths.triangle import Triangle, mix
from anarch_core.plugin import get_registry
from anarch_core.training.evaluation import evaluate


@pytest.fixture
def data() -> TensorData:
    torch.manual_seed(0)
    x = torch.randn(70, 1, 10, dtype=torch.float64)
    y = (x[:, 0, 2] > 0).long() + (x[:, 0, 7] > 0).long()
    return TensorData(name="toy", x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:], classes=3)


def cnn(seed: int, *, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = [nn.Conv1d(1, 3, 3, stride=2, padding=1), *([nn.BatchNorm1d(3)] if norm else []), nn.ReLU(), nn.Flatten(), nn.Linear(15, 3)]
    return nn.Sequential(*layers).double()


def moved(network: nn.Module, seed: int, length: float = 0.3) -> nn.Module:
    """The network after a step in every direction."""
    torch.manual_seed(seed)
    found = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=length)
    return found


def efcn(network: nn.Module, data: TensorData) -> nn.Module:
    return relax(network, "efcn", example_input=data.x_train[:1]).model


def vector(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def three(data: TensorData, *, norm: bool = False) -> tuple[nn.Module, nn.Module, nn.Module]:
    """A CNN, the projection of an eFCN that was trained on from it, and that eFCN."""
    parent = cnn(0, norm=norm)
    network = moved(efcn(parent, data), 1)
    return parent, project(network), network


def regression(data: TensorData) -> TensorData:
    """A linear problem, whose loss is a quadratic bowl."""
    torch.manual_seed(4)
    targets = torch.randn(70, 2, dtype=torch.float64)
    objective = get_registry().create("objective", "mse")
    return attrs.evolve(data, y_train=targets[:40], y_test=targets[40:], classes=0, objective=objective)


def test_a_quadratic_bowl_is_the_closed_form(data) -> None:
    data = regression(data)
    torch.manual_seed(2)
    networks = [nn.Sequential(nn.Flatten(), nn.Linear(10, 2)).double() for _ in range(3)]
    found = plane(*networks, data, points=5)

    origin, *others = map(vector, networks)
    basis, _ = torch.linalg.qr(torch.stack([other - origin for other in others], 1))
    basis = basis * torch.sign(torch.stack([(others[index] - origin) @ basis[:, index] for index in range(2)]))

    def loss(weights: torch.Tensor) -> torch.Tensor:
        x = data.x_train.flatten(1)
        return (x @ weights[:20].view(2, 10).T + weights[20:] - data.y_train).square().mean()

    slope, hessian = torch.func.grad(loss)(origin), torch.autograd.functional.hessian(loss, origin)
    place = torch.cartesian_prod(*(torch.tensor(axis, dtype=torch.float64) for axis in (found.surface.y, found.surface.x))).flip(1)
    steps = place @ basis.T
    bowl = loss(origin) + steps @ slope + 0.5 * ((steps @ hessian) * steps).sum(1)
    torch.testing.assert_close(found.surface.table("train").flatten(), bowl, rtol=1e-10, atol=0)

    table, (across, up) = (
        found.surface.table("train"),
        (next(b - a for a, b in itertools.pairwise(axis)) for axis in (found.surface.x, found.surface.y)),
    )
    second = (table[2, 3] + table[2, 1] - 2 * table[2, 2]) / across**2, (table[3, 2] + table[1, 2] - 2 * table[2, 2]) / up**2
    mixed = (table[3, 3] + table[1, 1] - table[3, 1] - table[1, 3]) / (4 * across * up)
    curvature = torch.tensor([[second[0], mixed], [mixed, second[1]]])
    torch.testing.assert_close(curvature, basis.T @ hessian @ basis, rtol=1e-9, atol=1e-9)


def test_distances_are_those_of_the_efcns(data) -> None:
    networks = three(data)
    found = plane(*networks, data, points=3)
    lifted = [vector(each) for each in (efcn(networks[0], data), efcn(networks[1], data), networks[2])]
    for name, (a, b) in {"first_second": (0, 1), "second_third": (1, 2), "first_third": (0, 2)}.items():
        assert found.distances[name] == pytest.approx(float((lifted[a] - lifted[b]).norm()), rel=1e-12)
    assert found.corners[0] == (0, 0)
    assert found.corners[1][1] == 0
    assert found.corners[2][1] > 0


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "tiled", "shared"])
def test_at_the_projection_there_is_a_right_angle(data, relaxation) -> None:
    parent = cnn(0)
    network = moved(relax(parent, relaxation, example_input=data.x_train[:1]).model, 1)
    _, second, third = plane(parent, project(network), network, data, points=2).corners
    assert third[0] == pytest.approx(second[0], rel=1e-11), "what a CNN could have learned lies along x, what none can along y"


def test_a_plane_of_cnns_is_that_of_their_efcns(data) -> None:
    networks = [cnn(seed) for seed in range(3)]
    small, large = plane(*networks, data, points=4), plane(*(efcn(each, data) for each in networks), data, points=4)
    assert [place for corner in small.corners for place in corner] == pytest.approx([place for corner in large.corners for place in corner])
    torch.testing.assert_close(small.surface.table("train"), large.surface.table("train"), rtol=1e-10, atol=0)
    torch.testing.assert_close(small.surface.table("test", "accuracy"), large.surface.table("test", "accuracy"))


@pytest.mark.parametrize("norm", [False, True])
def test_the_edges_are_the_straight_paths(data, norm) -> None:
    networks = three(data, norm=norm)
    found = plane(*networks, data, points=5)
    for name, (a, b) in {"first_second": (0, 1), "second_third": (1, 2), "first_third": (0, 2)}.items():
        path = interpolate(networks[a], networks[b], data, points=5)
        for part in ("train", "test"):
            one, other = ([score.loss for score in getattr(profile, part)] for profile in (found.edges[name], path))
            assert one == pytest.approx(other, rel=1e-10)
        assert found.edges[name].train_barrier.excess == pytest.approx(path.train_barrier.excess, rel=1e-9, abs=1e-12)
    assert (found.statistics_shift > 0) == norm


def test_the_rectangle_meets_the_networks_and_their_edges(data) -> None:
    parent, projection, network = three(data)
    found = plane(parent, projection, network, data, points=5, margin=0)
    table = found.surface.table("train")
    for model, at in ((parent, (0, 0)), (projection, (0, -1)), (network, (-1, -1))):
        assert float(table[at]) == pytest.approx(evaluate(model, data.x_train, data.y_train).loss, rel=1e-10)
    assert table[0].tolist() == pytest.approx([score.loss for score in found.edges["first_second"].train], rel=1e-10)


def test_batch_norm_statistics_are_those_of_the_point(data) -> None:
    networks = three(data, norm=True)
    found = plane(*networks, data, points=3, margin=0)
    hand = efcn(networks[0], data)
    one, two, other = (vector(each) for each in (hand, efcn(networks[1], data), networks[2]))
    torch.nn.utils.vector_to_parameters(one + 0.5 * (two - one) + 0.5 * (other - two), hand.parameters())
    hidden = hand[0](data.x_train)
    hand.eval()
    hand[1].running_mean.copy_(hidden.mean((0, 2)))
    hand[1].running_var.copy_(hidden.var((0, 2)))
    assert float(found.surface.table("train")[1, 1]) == pytest.approx(evaluate(hand, data.x_train, data.y_train).loss, rel=1e-10)
    assert float(found.surface.table("test")[1, 1]) == pytest.approx(evaluate(hand, data.x_test, data.y_test).loss, rel=1e-10)


def test_the_way_is_projected(data) -> None:
    networks = three(data)
    triangle = Triangle.of(*networks, data.x_train[:1])
    origin, two, other = (vector(each) for each in triangle.networks)
    basis = torch.linalg.qr(torch.stack([two - origin, other - origin], 1)).Q
    torch.manual_seed(7)
    beside = torch.randn_like(origin)
    beside -= basis @ (basis.T @ beside)
    beside /= beside.norm()

    def at(x: float, y: float, distance: float) -> nn.Module:
        shares = torch.tensor(triangle.shares(x, y), dtype=torch.float64)
        made = copy.deepcopy(networks[2])
        torch.nn.utils.vector_to_parameters(shares @ torch.stack([origin, two, other]) + distance * beside, made.parameters())
        return made

    way = [(0.0, 0.0, 0.0), (0.3, 0.4, 0.5), (-0.2, 0.1, 1.5)]
    found = plane(*networks, data, points=2, trajectory=((2 * epochs, at(*place)) for epochs, place in enumerate(way)))
    assert [passed.epochs for passed in found.trajectory] == [0, 2, 4]
    for passed, (x, y, distance) in zip(found.trajectory, way, strict=True):
        assert (passed.x, passed.y, passed.distance) == pytest.approx((x, y, distance), abs=1e-12)
    assert [passed.step for passed in found.trajectory] == pytest.approx([0, *(math.dist(a, b) for a, b in itertools.pairwise(way))])
    assert found.trajectory_share == pytest.approx((0.25 + 0.34) / (0.25 + 0.34 + 0.25 + 1))
    assert plane(*networks, data, points=2).trajectory_share is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=2, max_size=2), st.integers(0, 2**20))
def test_every_point_is_a_combination_of_the_three(place, seed) -> None:
    second, third = place
    first = 1 - second - third
    assume(any(abs(share) > 1e-3 for share in (first, second, third)))
    numbers = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    out = torch.empty(5, dtype=torch.float64)
    mix([tuple(numbers)], (first, second, third), [out])
    expected = torch.tensor([first, second, third], dtype=torch.float64) @ numbers
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda one, other: (one, one, other), "the first two networks coincide"),
        (lambda one, other: (one, other, one), "the three networks are on one line"),
        (lambda one, other: (one, other, other), "the three networks are on one line"),
        (lambda one, other: (one, other, moved(one, 3, math.nan)), "weights of the networks are not finite"),
    ],
)
def test_networks_on_a_line_have_no_plane(data, make, why) -> None:
    with pytest.raises(NoPlaneError, match=why):
        plane(*make(cnn(0), cnn(1)), data, points=2)


def test_at_the_switch_there_is_no_plane_in_single_precision_either(data) -> None:
    parent, data = cnn(0).float(), data.to(dtype=torch.float32)
    network = efcn(parent, data)
    with pytest.raises(NoPlaneError, match="coincide"):
        plane(parent, project(network), network, data, points=2)


@pytest.mark.parametrize(
    ("given", "why"),
    [({"points": 1}, "needs from 2 to 1,000 points on a side, got 1"), ({"margin": -1}, "got -1"), ({"margin": math.nan}, "got nan")],
)
def test_what_is_out_of_range_is_refused(data, given, why) -> None:
    with pytest.raises(ProbeError, match=why):
        plane(*three(data), data, **given)


def test_a_network_of_less_constraints_has_no_place_on_the_way(data) -> None:
    with pytest.raises(ProbeError, match="less constrained than the three"):
        plane(cnn(0), cnn(1), cnn(2), data, points=2, trajectory=[(1, three(data)[2])])


def test_networks_stay_as_they_were(data) -> None:
    networks = three(data, norm=True)
    kept = [copy.deepcopy(model.state_dict()) for model in networks]
    state = torch.get_rng_state()
    found: Plane = plane(*networks, data, points=2, samples=20, trajectory=[(0, networks[2])])
    assert torch.equal(torch.get_rng_state(), state)
    for model, before in zip(networks, kept, strict=True):
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "plane through three networks" in str(found.overview())


def test_a_surface_is_a_table(data) -> None:
    pytest.importorskip("pandas")
    surface = plane(*three(data), data, points=3).surface
    table = surface.to_dataframe()
    assert list(table.columns) == ["x", "y", "train.loss", "train.accuracy", "test.loss", "test.accuracy"]
    assert table["test.loss"].tolist() == surface.table("test").flatten().tolist()
    assert table["x"].tolist() == [*surface.x] * 3
    assert surface.range_of_loss() == (table["train.loss"].min(), table["train.loss"].max())


def test_samples_are_balanced_in_both_parts(data) -> None:
    few = limited(data, 6)
    for part in ("train", "test"):
        labels = getattr(few, f"y_{part}")
        assert torch.bincount(labels).tolist() == [2, 2, 2]
    assert limited(data, None) is data
