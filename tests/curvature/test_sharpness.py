"""Sharpness against closed forms: quadratic losses, hills, and the limit of small radii."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from anarch_core.curvature.neighbourhood import Neighbourhood
from anarch_core.curvature.risk import Risk
from anarch_core.curvature.sharpness import average_sharpness, sam_sharpness, worst_sharpness
from anarch_core.errors import ProbeError

RADIUS = 0.3


def bowl(*, at_minimum: bool = False) -> tuple[Risk, torch.Tensor, torch.Tensor]:
    """Squared error of a linear network: the risk, its Hessian and its gradient at the weights."""
    torch.manual_seed(0)
    x, y = torch.randn(30, 6, dtype=torch.float64), torch.randn(30, 1, dtype=torch.float64)
    model = nn.Linear(6, 1, bias=False).double()
    if at_minimum:
        with torch.no_grad():
            model.weight.copy_(torch.linalg.lstsq(x, y).solution.T)
    gradient = 2 * x.T @ (x @ model.weight.detach().T - y) / len(x)
    return Risk(model, x, y, loss=nn.functional.mse_loss, batch_size=7), 2 * x.T @ x / len(x), gradient[:, 0]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def largest_rise(hessian: torch.Tensor, gradient: torch.Tensor, radius: float) -> float:
    """max of g'u + u'Hu/2 for |u| <= radius and a positive H: on the boundary, where (m - H) u = g for an m above all eigenvalues."""
    values, vectors = torch.linalg.eigh(hessian)
    components = vectors.T @ gradient
    low, high = float(values[-1]), float(values[-1] + gradient.norm() / radius)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float((components / (middle - values)).norm()) > radius else (low, middle)
    u = components / (high - values)
    return float(components @ u + (values * u * u).sum() / 2)


def test_the_mean_of_a_pair_on_a_quadratic_bowl_is_its_curvature_along_it() -> None:
    risk, hessian, _ = bowl()
    near = Neighbourhood(risk)
    for _ in range(5):
        u = near.onto(near.noise(seeded(3)), RADIUS)
        assert float(u.norm()) == pytest.approx(RADIUS, abs=1e-15)
        assert (near.change(u) + near.change(u, sign=-1)) / 2 == pytest.approx(float(u @ hessian @ u) / 2, abs=1e-12)


def test_the_average_on_a_quadratic_bowl_is_the_trace() -> None:
    risk, hessian, _ = bowl()
    near = Neighbourhood(risk)
    expected = RADIUS**2 * float(hessian.trace()) / 2
    axes = [near.change(RADIUS * axis) / 2 + near.change(RADIUS * axis, sign=-1) / 2 for axis in torch.eye(6, dtype=torch.float64)]
    assert math.fsum(axes) == pytest.approx(expected, abs=1e-12)
    found = average_sharpness(near, RADIUS, generator=seeded(), pairs=200)
    assert abs(found.value - expected) < 3 * found.standard_error < 0.3 * expected


def test_one_pair_has_no_standard_error() -> None:
    assert math.isnan(average_sharpness(Neighbourhood(bowl()[0]), RADIUS, generator=seeded(), pairs=1).standard_error)


def test_the_worst_at_a_minimum_is_the_largest_eigenvalue() -> None:
    risk, hessian, _ = bowl(at_minimum=True)
    found = worst_sharpness(Neighbourhood(risk), RADIUS, generator=seeded(), steps=300, rtol=0)
    assert found.value == pytest.approx(RADIUS**2 * float(torch.linalg.eigvalsh(hessian)[-1]) / 2, rel=1e-9)
    assert [ascent.start for ascent in found.ascents] == ["network", "random"]
    assert float(found.perturbation.norm()) == pytest.approx(RADIUS)


@pytest.mark.parametrize("radius", [0.01, 0.3, 3.0])
def test_the_worst_away_from_the_minimum_is_the_solution_of_the_trust_region(radius: float) -> None:
    risk, hessian, gradient = bowl()
    found = worst_sharpness(Neighbourhood(risk), radius, generator=seeded(), steps=300, rtol=0)
    assert found.value == pytest.approx(largest_rise(hessian, gradient, radius), rel=1e-9)


@pytest.mark.parametrize("radius", [0.01, 0.3])
def test_the_step_of_sam(radius: float) -> None:
    risk, hessian, gradient = bowl()
    length = float(gradient.norm())
    expected = radius * length + radius**2 * float(gradient @ hessian @ gradient) / (2 * length**2)
    assert sam_sharpness(Neighbourhood(risk), radius) == pytest.approx(expected, abs=1e-12)


def test_a_hill_inside_the_radius_is_found() -> None:
    risk, _, _ = bowl()
    upside_down = Risk(risk.model, risk.inputs, risk.targets, loss=lambda outputs, targets: -nn.functional.mse_loss(outputs, targets))
    best = torch.linalg.lstsq(risk.inputs, risk.targets).solution
    highest = -float(nn.functional.mse_loss(risk.inputs @ best, risk.targets)) - upside_down.value()
    found = worst_sharpness(Neighbourhood(upside_down), 10.0, generator=seeded(), steps=300, rtol=0)
    assert found.value == pytest.approx(highest, rel=1e-6)
    assert float(found.perturbation.norm()) < 5


def test_small_radii_are_gradient_and_hessian(case) -> None:
    risk = Risk(case.model, case.inputs, case.targets)
    near, gradient = Neighbourhood(risk), risk.gradient()
    length, radius = float(gradient.norm()), 1e-4
    assert sam_sharpness(near, radius) / radius == pytest.approx(length, rel=1e-2)
    second = near.change(near.onto(gradient.clone(), radius)) + near.change(near.onto(gradient.clone(), radius), sign=-1)
    assert second / radius**2 == pytest.approx(float(gradient @ case.dense @ gradient) / length**2, rel=1e-3)
    worst = worst_sharpness(near, radius, generator=seeded()).value  # on the boundary, where adding to the diagonal shifts all alike
    assert worst == pytest.approx(largest_rise(case.dense + 50 * torch.eye(risk.size), gradient, radius) - 25 * radius**2, rel=1e-4)


def test_batches_change_nothing_and_the_network_stays_as_it_was(case) -> None:
    before = copy.deepcopy(case.model.state_dict())
    whole, ragged = (Neighbourhood(Risk(case.model, case.inputs, case.targets, batch_size=size)) for size in (30, 7))
    assert sam_sharpness(whole, RADIUS) == pytest.approx(sam_sharpness(ragged, RADIUS), rel=1e-11)
    for name, tensor in case.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(parameter.grad is None for parameter in case.model.parameters())


def test_parameters_that_are_not_trained_are_not_moved() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    model[0].requires_grad_(False)
    risk = Risk(model, torch.randn(20, 4, dtype=torch.float64), torch.randint(3, (20,)))
    assert Neighbourhood(risk).noise(seeded()).shape == (18,)
    worst_sharpness(Neighbourhood(risk), RADIUS, generator=seeded(), steps=2)


def test_a_loss_that_is_not_finite_is_told() -> None:
    risk = Risk(
        nn.Linear(2, 1).double(), torch.ones(3, 2, dtype=torch.float64), torch.zeros(3), loss=lambda outputs, _: outputs.exp().mean()
    )
    near = Neighbourhood(risk)
    with pytest.raises(ProbeError, match="the loss is inf within the radius"):
        average_sharpness(near, 1e6, generator=seeded())
