from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import wasserstein_distance

from anarch_core.curvature.density import spectral_density
from anarch_core.curvature.leading import eigenpairs
from anarch_core.curvature.operators import MatrixOperator
from anarch_core.curvature.risk import HessianOperator, Risk
from anarch_core.curvature.trace_estimate import trace


def hessian(case) -> HessianOperator:
    return HessianOperator(Risk(case.model, case.inputs, case.targets))


def test_density_is_near_the_exact_spectrum(case, generator) -> None:
    exact = torch.linalg.eigvalsh(case.dense)
    density = spectral_density(hessian(case), probes=10, steps=30, generator=generator)
    distance = wasserstein_distance(density.nodes.flatten(), exact, density.weights.flatten())
    assert distance < 0.02 * float(exact[-1] - exact[0])
    assert density.products == 300


def test_each_probe_is_exact_in_its_first_moments(case, generator) -> None:
    size = len(case.dense)
    density = spectral_density(hessian(case), probes=1, steps=10, generator=generator)
    start = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    start /= start.norm()
    assert density.moment(0) == pytest.approx(1, rel=1e-12)
    assert density.moment(1) == pytest.approx(float(start @ case.dense @ start), rel=1e-9)
    assert density.moment(2) == pytest.approx(float((case.dense @ start).square().sum()), rel=1e-9)
    assert float(density.nodes.max()) <= float(torch.linalg.eigvalsh(case.dense)[-1]) * (1 + 1e-12)


def test_as_many_steps_as_rows_give_the_whole_spectrum(generator) -> None:
    matrix = torch.diag(torch.linspace(-1, 2, 15, dtype=torch.float64))
    density = spectral_density(MatrixOperator(matrix), probes=1, steps=15, reorthogonalise=True, generator=generator)
    torch.testing.assert_close(density.nodes[0], torch.linspace(-1, 2, 15, dtype=torch.float64), rtol=0, atol=1e-10)


def test_smoothed_density_integrates_to_one_at_any_scale(generator) -> None:
    matrix = torch.diag(torch.linspace(-1, 2, 40, dtype=torch.float64))
    densities = [spectral_density(MatrixOperator(matrix * scale), generator=torch.Generator().manual_seed(1)) for scale in (1.0, 1e-6)]
    curves = [density.smoothed() for density in densities]
    for grid, values in curves:
        assert float(torch.trapezoid(values, grid)) == pytest.approx(1, abs=1e-2)
    torch.testing.assert_close(curves[0][1], curves[1][1] * 1e-6, rtol=1e-6, atol=1e-9)


def test_exhausted_krylov_spaces_keep_their_weight(generator) -> None:
    density = spectral_density(MatrixOperator(torch.eye(20)), probes=2, steps=8, generator=generator)
    torch.testing.assert_close(density.weights.sum(1), torch.ones(2, dtype=torch.float64))
    assert density.moment(3) == pytest.approx(1, rel=1e-5)


def test_trace_within_four_standard_errors_with_and_without_deflation(case) -> None:
    exact = float(case.dense.trace())
    operator = hessian(case)
    leading = eigenpairs(operator, 6, generator=torch.Generator().manual_seed(1), rtol=1e-4)
    plain = trace(operator, samples=40, generator=torch.Generator().manual_seed(2))
    deflated = trace(operator, samples=40, generator=torch.Generator().manual_seed(2), leading=leading)
    for estimate in (plain, deflated):
        assert abs(estimate.value - exact) <= 4 * estimate.standard_error
        assert estimate.samples == 40
    assert deflated.standard_error < 0.8 * plain.standard_error


def test_trace_of_a_diagonal_matrix_is_exact_and_one_sample_has_no_error_bar(generator) -> None:
    estimate = trace(MatrixOperator(torch.diag(torch.arange(10.0))), samples=1, generator=generator)
    assert estimate.value == pytest.approx(45)
    assert math.isnan(estimate.standard_error)
