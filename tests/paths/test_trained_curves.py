"""Curves of one bend: their shape, their gradient, and where their training ends."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from anarch_core.paths.trained_curves import BentCurve, bezier, polygon

A, B = torch.tensor([-1.0, 0.3], dtype=torch.float64), torch.tensor([1.0, -0.2], dtype=torch.float64)
PLACES = [index / 20 for index in range(21)]
KINDS = pytest.mark.parametrize("height", [bezier, polygon])


def quiet(done: int, total: int) -> None:
    return None


def at(curve: BentCurve, t: float) -> torch.Tensor:
    out = torch.empty_like(curve.bend[0])
    curve(t, [out])
    return out


def by_definition(height, theta: torch.Tensor, t: float, a: torch.Tensor = A, b: torch.Tensor = B) -> torch.Tensor:
    """Equations 4 and 5 of Garipov et al. 2018."""
    if height is bezier:
        return (1 - t) ** 2 * a + 2 * t * (1 - t) * theta + t**2 * b
    return 2 * (t * theta + (0.5 - t) * a) if t <= 0.5 else 2 * ((t - 0.5) * b + (1 - t) * theta)


def descending(loss):
    """Slopes of a loss of one vector, by autograd."""

    def slope(point, t: float) -> tuple[float, list[torch.Tensor | None]]:
        here = torch.empty_like(A)
        point([here])
        here.requires_grad_()
        value = loss(here)
        return float(value.detach()), list(torch.autograd.grad(value, [here]))

    return itertools.repeat(slope)


@KINDS
@pytest.mark.parametrize("t", PLACES)
def test_points_are_those_of_the_paper(height, t) -> None:
    curve = BentCurve([A], [B], height)
    curve.bend[0].copy_(torch.tensor([0.7, -2.0]))
    torch.testing.assert_close(at(curve, t), by_definition(height, (A + B) / 2 + curve.bend[0], t), rtol=0, atol=1e-14)


@KINDS
def test_ends_are_those_given_to_the_bit_however_the_bend_has_been_trained(height) -> None:
    a, b = torch.randn(7), torch.cat([-torch.zeros(3), torch.randn(4)])
    curve = BentCurve([a], [b], height)
    curve.bend[0].fill_(torch.inf)
    for t, end in ((0.0, a), (1.0, b)):
        point = at(curve, t)
        assert torch.equal(point, end)
        assert torch.equal(point.signbit(), end.signbit())


@KINDS
def test_a_step_is_that_of_adam_along_the_gradient_by_the_bend(height) -> None:
    """Against autograd through the paper's formula, and PyTorch's optimizer."""

    def loss(point: torch.Tensor) -> torch.Tensor:
        return (point**4).sum() + (point[0] - 2) * point[1].sin()

    seen: list[float] = []
    slope = next(descending(loss))

    def noted(point, t: float) -> tuple[float, list[torch.Tensor | None]]:
        seen.append(t)
        return slope(point, t)

    curve = BentCurve([A], [B], height).train(itertools.repeat(noted), lr=0.01, steps=50, seed=3, progress=quiet)
    theta = ((A + B) / 2).requires_grad_()
    unit = float((B - A).square().mean().sqrt())
    optimizer = torch.optim.Adam([theta])
    for step, t in enumerate(seen):
        optimizer.param_groups[0]["lr"] = 0.01 * unit * min(1.0, max(0.01, 1 - 0.99 * (step / 50 - 0.5) / 0.4))
        optimizer.zero_grad()
        loss(by_definition(height, theta, t)).backward()
        optimizer.step()
    torch.testing.assert_close((A + B) / 2 + curve.bend[0], theta.detach(), rtol=0, atol=1e-12)
    assert 0 <= min(seen) < 0.1
    assert 0.9 < max(seen) < 1


@KINDS
def test_in_a_bowl_the_bend_is_the_minimiser_of_the_mean_loss(height) -> None:
    """Of E (phi - c)' H (phi - c) / 2 that is d = (c - m) E h / E h^2, m the middle: for every positive H, as h is symmetric."""
    centre, curvature = torch.tensor([0.4, 1.5], dtype=torch.float64), torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    minimiser = (centre - (A + B) / 2) * {bezier: (1 / 3) / (2 / 15), polygon: (1 / 2) / (1 / 3)}[height]

    def loss(point: torch.Tensor) -> torch.Tensor:
        return (point - centre) @ curvature @ (point - centre) / 2

    curve = BentCurve([A], [B], height)
    curve.bend[0].copy_(minimiser)
    nodes, weights = np.polynomial.legendre.leggauss(5)  # exact for polynomials up to degree 9, on each half
    halves = [((node + 1) / 4 + half / 2, weight / 4) for half in (0, 1) for node, weight in zip(nodes, weights, strict=True)]
    mean = sum(height(t) * weight * curvature @ (at(curve, t) - centre) for t, weight in halves)
    torch.testing.assert_close(mean, torch.zeros_like(A), rtol=0, atol=1e-14)
    found = BentCurve([A], [B], height).train(descending(loss), lr=0.05, steps=1000, seed=0, progress=quiet).bend[0]
    assert float((found - minimiser).norm() / minimiser.norm()) < 0.1  # what 1000 values of t leave open


@KINDS
def test_it_goes_around_a_wall(height) -> None:
    """On the straight line the wall is 4 high; the valley around it is known to be low."""

    def loss(point: torch.Tensor) -> torch.Tensor:
        x, y = point
        return 4 * torch.exp(-8 * (x**2 + (y - 0.1) ** 2))

    def highest(curve: BentCurve) -> float:
        return max(float(loss(at(curve, t))) for t in PLACES)

    ends = [torch.tensor([-1.0, 0.0], dtype=torch.float64)], [torch.tensor([1.0, 0.0], dtype=torch.float64)]
    assert highest(BentCurve(*ends, height)) > 3.5
    assert highest(BentCurve(*ends, height).train(descending(loss), lr=0.05, steps=300, seed=0, progress=quiet)) < 0.2


def test_what_is_not_trained_stays_on_the_straight_line() -> None:
    def slope(point, t: float) -> tuple[float, list[torch.Tensor | None]]:
        return 0.0, [None, torch.ones(2, dtype=torch.float64)]

    curve = BentCurve([A, A], [B, B], bezier).train(itertools.repeat(slope), lr=0.1, steps=3, seed=0, progress=quiet)
    frozen, moved = torch.empty_like(A), torch.empty_like(A)
    curve(0.3, [frozen, moved])
    assert torch.equal(frozen, torch.lerp(A, B, 0.3))
    assert not torch.allclose(moved, frozen)


def test_steps_are_in_units_of_what_the_ends_differ_by_tensor_by_tensor() -> None:
    """The first step of Adam is as long as the step size, whatever the gradient is; where a tensor is alike, all of the way is the unit."""
    zero = torch.zeros(4, dtype=torch.float64)
    ends = [zero, zero, zero], [zero + 3, zero + 0.01, zero]

    def slope(point, t: float) -> tuple[float, list[torch.Tensor | None]]:
        return 0.0, [zero + 7, zero - 0.2, zero + 1e-3]

    curve = BentCurve(*ends, bezier).train(itertools.repeat(slope), lr=0.1, steps=1, seed=0, progress=quiet)
    overall = math.sqrt((9 + 1e-4 + 0) / 3)
    for bend, step in zip(curve.bend, (-0.3, 0.001, -0.1 * overall), strict=True):
        torch.testing.assert_close(bend, zero + step, rtol=1e-4, atol=0)


def test_a_seed_decides_where_gradients_are_taken() -> None:
    def places(seed: int) -> Sequence[float]:
        seen: list[float] = []

        def slope(point, t: float) -> tuple[float, list[torch.Tensor | None]]:
            seen.append(t)
            return 0.0, [None]

        BentCurve([A], [B], bezier).train(itertools.repeat(slope), lr=0.1, steps=200, seed=seed, progress=quiet)
        return seen

    state = torch.get_rng_state()
    assert places(0) == places(0)
    assert places(0) != places(1)
    assert math.isclose(sum(places(0)) / 200, 0.5, abs_tol=0.06)  # three deviations of the mean
    assert torch.equal(torch.get_rng_state(), state)
