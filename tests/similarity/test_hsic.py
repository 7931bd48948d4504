"""Debiased linear CKA of two matrices against its definition, what it may not depend on, and what it must be in the mean."""

from __future__ import annotations

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import pytest
import torch

from anarch_core.errors import ProbeError
from anarch_core.similarity import linear_cka, unbiased_hsic


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_definition(k: torch.Tensor, l: torch.Tensor) -> float:  # noqa: E741
    """The U-statistic of Song et al. (2012): the mean of k_ij (l_ij + l_qr - 2 l_iq) over all distinct i, j, q, r."""
    terms = [float(k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])) for i, j, q, r in itertools.permutations(range(len(k)), 4)]
    return sum(terms) / len(terms)


def biased(x: torch.Tensor, y: torch.Tensor) -> float:
    """Linear CKA as Kornblith et al. (2019) have it."""
    k, l = ((each - each.mean(0)) @ (each - each.mean(0)).T for each in (x, y))  # noqa: E741
    return float((k * l).sum() / (k.norm() * l.norm()))


@pytest.mark.parametrize("n", [4, 5, 7])
def test_the_estimator_is_its_sum_over_distinct_samples(n: int) -> None:
    x, y = drawn(n, 3), drawn(n, 9, seed=1)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    assert unbiased_hsic(k, l) == pytest.approx(by_definition(k, l), rel=1e-11)
    expected = by_definition(k, l) / math.sqrt(by_definition(k, k) * by_definition(l, l))
    assert linear_cka(x, y) == pytest.approx(max(-1.0, min(expected, 1.0)), abs=1e-11)


def test_it_is_the_formula_of_the_paper() -> None:
    x, y = drawn(12, 5), drawn(12, 40, seed=1)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    n, one = 12, torch.ones(12, dtype=torch.float64)
    k0, l0 = k - k.diag().diag(), l - l.diag().diag()
    traced = (k0 @ l0).trace() + (one @ k0 @ one) * (one @ l0 @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (one @ k0 @ l0 @ one)
    assert unbiased_hsic(k, l) == pytest.approx(float(traced) / (n * (n - 3)), rel=1e-12)


def test_its_mean_over_all_minibatches_is_that_of_all_samples() -> None:
    x, y = drawn(8, 3), drawn(8, 4, seed=1)
    k, l = x @ x.T, y @ y.T  # noqa: E741
    chosen = [list(rows) for rows in itertools.combinations(range(8), 5)]
    mean = sum(unbiased_hsic(k[rows][:, rows], l[rows][:, rows]) for rows in chosen) / len(chosen)
    assert mean == pytest.approx(unbiased_hsic(k, l), rel=1e-11)


@hypothesis.given(n=st.integers(5, 12), p=st.integers(1, 20), q=st.integers(1, 20), seed=st.integers(0, 10**6), scale=st.floats(1e-3, 1e3))
def test_rotations_scales_shifts_and_the_order_of_samples_change_nothing(n: int, p: int, q: int, seed: int, scale: float) -> None:
    x, y = drawn(n, p, seed=seed), drawn(n, q, seed=seed + 1)
    found = linear_cka(x, y)
    rotation = torch.linalg.qr(drawn(p, p, seed=seed + 2)).Q
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = scale * (x @ rotation) + 3 * drawn(p, seed=seed + 3)
    assert linear_cka(moved[order], y[order]) == pytest.approx(found, abs=1e-8)
    assert linear_cka(x, moved) == pytest.approx(1.0, abs=1e-8)
    assert linear_cka(y, x) == pytest.approx(found, abs=1e-12)


def test_what_is_independent_has_none_in_the_mean_however_many_features_there_are() -> None:
    draws = [(drawn(20, 400, seed=2 * seed), drawn(20, 400, seed=2 * seed + 1)) for seed in range(200)]
    found = torch.tensor([unbiased_hsic(x @ x.T, y @ y.T) / 400**2 for x, y in draws])
    assert abs(float(found.mean())) < 3 * float(found.std()) / math.sqrt(len(draws))
    similar = torch.tensor([linear_cka(x, y) for x, y in draws])
    assert abs(float(similar.mean())) < 3 * float(similar.std()) / math.sqrt(len(draws))
    assert min(biased(x, y) for x, y in draws) > 0.9


def test_it_approaches_the_similarity_of_the_covariances() -> None:
    a, b = drawn(6, 10), drawn(6, 4, seed=1)
    # of X = Z A and Y = Z B + noise with Z of unit covariance
    expected = (a.T @ b).norm() ** 2 / ((a.T @ a).norm() * (b.T @ b + torch.eye(4)).norm())
    errors = []
    for n in (30, 3000):
        z = drawn(n, 6, seed=2)
        errors.append(abs(linear_cka(z @ a, z @ b + drawn(n, 4, seed=3)) - float(expected)))
    assert errors[1] < 0.02 < errors[0]


def test_many_features_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = drawn(6, 50), drawn(6, 31, seed=1)
    whole = linear_cka(x, y)
    monkeypatch.setattr("anarch_core.similarity.hsic.NUMBERS", 42)
    assert linear_cka(x, y) == pytest.approx(whole, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_does_not_vary_has_no_similarity(dtype: torch.dtype) -> None:
    y = drawn(9, 5).to(dtype)
    constant = torch.full((9, 7), 0.3, dtype=dtype)
    rounded = constant * (1 + torch.finfo(dtype).eps * torch.arange(9)[:, None])
    alone = constant.clone()
    alone[4] += 1  # HSIC needs pairs of samples that differ from others
    for x in (constant, rounded, alone, torch.zeros(9, 0, dtype=dtype), constant * torch.nan, constant * torch.inf):
        assert linear_cka(x, y) is None
    little = constant + 1e-3 * drawn(9, 7, seed=1).to(dtype)
    assert linear_cka(little, y) is not None


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ProbeError, match="takes at least 4 samples at once, got 3"):
        linear_cka(drawn(3, 2), drawn(3, 2))
    with pytest.raises(ProbeError, match="5 samples of one and 4 of the other"):
        linear_cka(drawn(5, 2), drawn(4, 2))
