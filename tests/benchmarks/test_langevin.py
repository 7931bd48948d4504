"""Chains find what is known of a coefficient, and their step biases them by what is known too."""

from __future__ import annotations

import itertools
import math

import langevin
import numpy as np
import pytest
import torch
from langevin import Sampling, deep_linear, linear_network, quadratic, reduced_rank, sample, sloping, truth

CURVATURES = torch.tensor([3.0, 1.0, 0.3, 0.1, 0.0], dtype=torch.float64)
MANY = 1e6 / math.log(1e6)


def bowl(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return (place.square() @ CURVATURES) / 2, place * CURVATURES


def how(**changed) -> Sampling:
    return Sampling(**({"strength": 100.0, "localisation": 10.0, "step": 3e-3, "burn_in": 300, "steps": 2000, "chains": 16} | changed))


def test_of_a_bowl_corrected_chains_find_the_closed_form() -> None:
    found = sample(bowl, 5, how())
    assert abs(found.value - quadratic(CURVATURES, 100, 10)) < 4 * found.error
    assert found.error < 0.03 * found.value
    assert found.r_hat < 1.05
    assert 0.4 < found.acceptance < 0.8


@pytest.mark.parametrize("step", [1e-3, 6e-3, 11e-3])
def test_other_chains_are_off_by_their_step_as_predicted_and_r_hat_does_not_tell(step: float) -> None:
    found = sample(bowl, 5, how(step=step, corrected=False))
    assert abs(found.value - quadratic(CURVATURES, 100, 10, step)) < 4 * found.error
    assert found.r_hat < 1.05
    if step == 11e-3:
        assert found.value > 2 * quadratic(CURVATURES, 100, 10)


def test_chains_too_short_have_not_left_and_r_hat_tells() -> None:
    found = sample(bowl, 5, how(step=1e-5, burn_in=0, steps=200, corrected=False))
    assert found.value < 0.2 * quadratic(CURVATURES, 100, 10)
    assert found.r_hat > 1.3


def test_a_slope_takes_away_what_the_closed_form_says() -> None:
    slopes = torch.tensor([0.1, 0.0, 0.2, 0.1, 0.05], dtype=torch.float64)

    def slope(place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        loss, gradient = bowl(place)
        return loss + place @ slopes, gradient + slopes

    found = sample(slope, 5, how())
    expected = quadratic(CURVATURES, 100, 10) + sloping(CURVATURES, slopes, 100, 10)
    assert expected < 0
    assert abs(found.value - expected) < 4 * found.error


def test_a_quartic_agrees_with_quadrature() -> None:
    found = sample(langevin.quartic, 1, how(strength=1000.0, localisation=1.0, step=1e-2))
    expected = langevin.quartic_by_quadrature(1000.0, 1.0)
    assert abs(found.value - expected) < 4 * found.error
    assert found.error < 0.1 * expected


def test_valleys_that_grow_narrow_take_steps_smaller_than_usual_and_r_hat_does_not_tell() -> None:
    expected = langevin.crossing_by_quadrature(1000.0, 1.0)
    usual = sample(langevin.crossing, 2, how(strength=1000.0, localisation=1.0, step=1e-2))
    assert usual.value + 4 * usual.error < expected
    assert usual.r_hat < 1.05
    small = sample(langevin.crossing, 2, how(strength=1000.0, localisation=1.0, step=1e-3, acceptance=0.9))
    assert abs(small.value - expected) < 4 * small.error


def test_quadratures_approach_the_coefficients() -> None:
    assert langevin.quartic_by_quadrature(1e12, 1e-3) == pytest.approx(1 / 4, rel=1e-6)
    below = [1 / 2 - langevin.crossing_by_quadrature(10.0**power, 1.0) for power in (6, 9, 12)]
    assert below == sorted(below, reverse=True)
    assert below[-1] == pytest.approx(1 / math.log(1e12), rel=0.15)  # (multiplicity − 1) / log


def test_two_formulas_of_linear_networks_agree() -> None:
    for inputs, hidden, outputs in itertools.product(range(1, 9), repeat=3):
        for rank in range(min(inputs, hidden, outputs) + 1):
            assert deep_linear([inputs, hidden, outputs], rank) == reduced_rank(inputs, hidden, outputs, rank)


def test_a_regular_case_has_half_its_parameters() -> None:
    assert reduced_rank(3, 9, 4, 0) == deep_linear([3, 9, 4], 0) == 6
    assert deep_linear([1, 1, 1, 1], 1) == 1 / 2
    assert deep_linear([4, 4], 2) == 8


def test_gradients_of_linear_networks_are_those_of_autograd() -> None:
    potential = linear_network(truth((3, 2, 4, 3), 1, 0))
    place = torch.randn(2, 26, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    loss, slope = potential(place)
    torch.testing.assert_close(slope, torch.autograd.grad(loss.sum(), place)[0], rtol=1e-12, atol=1e-12)


def test_linear_networks_have_the_coefficient_of_theory() -> None:
    sizes, rank = (5, 4, 5), 2
    factors = truth(sizes, rank, 0)
    found = sample(linear_network(factors), 40, how(strength=MANY, localisation=1.0, step=1e-5, burn_in=800, steps=2500))
    assert found.value == pytest.approx(deep_linear(sizes, rank), rel=0.1)
    assert found.r_hat < 1.1


def test_samples_that_follow_one_another_count_less() -> None:
    random = np.random.default_rng(0)
    white = random.standard_normal((4, 5000))
    assert langevin.effective_samples(white) == pytest.approx(20_000, rel=0.1)
    slow = np.zeros_like(white)
    for step in range(1, 5000):
        slow[:, step] = 0.9 * slow[:, step - 1] + white[:, step]
    assert langevin.effective_samples(slow) == pytest.approx(20_000 / 19, rel=0.25)
