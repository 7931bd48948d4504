"""A linear constraint W = Aθ against the dense matrix A that it stands for."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anarch_core.constraint import NOTHING, Constraint, Incidence


@st.composite
def factors(draw: st.DrawFn, *, entries: int | None = None, labels: int | None = None) -> Incidence:
    """Any factor: identities, zeros, shared entries, dead labels, entries with several labels."""
    entries = entries or draw(st.integers(1, 4))
    labels = labels or draw(st.integers(1, 4))
    if entries == labels and draw(st.booleans()):
        return Incidence.identity(entries)
    if draw(st.integers(0, 3)):
        return Incidence.of(np.array(draw(st.lists(st.integers(NOTHING, labels - 1), min_size=entries, max_size=entries))), labels)
    pairs = draw(st.lists(st.tuples(st.integers(0, entries - 1), st.integers(0, labels - 1)), max_size=6))
    return Incidence(np.array([e for e, _ in pairs], dtype=np.int64), np.array([la for _, la in pairs], dtype=np.int64), labels, entries)


@st.composite
def constraints(draw: st.DrawFn, *, parent: tuple[int, ...] | None = None) -> Constraint:
    """A product of one to three factors; of a weight ``parent`` where that is given."""
    if parent is None:
        found = draw(st.lists(factors(), min_size=1, max_size=3))
    else:
        merged = draw(st.booleans())
        sizes = [math.prod(parent)] if merged else list(parent)
        found = [draw(factors(labels=size)) for size in sizes]
    shape = [factor.entries for factor in found]
    return Constraint(shape, parent or [factor.labels for factor in found], found)


def dense(constraint: Constraint) -> np.ndarray:
    """A, [entries of W, entries of θ]."""
    return functools.reduce(np.kron, [factor.matrix.toarray() for factor in constraint.factors])


def random(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@given(constraints())
@settings(max_examples=150, deadline=None)
def test_lift_projection_and_sums_are_those_of_the_matrix(constraint: Constraint) -> None:
    a = dense(constraint)
    theta, weight = random(constraint.parent_shape), random(constraint.shape, 1)
    flat = weight.numpy().ravel()
    assert np.allclose(constraint.lift(theta).numpy().ravel(), a @ theta.numpy().ravel(), atol=1e-12)
    assert np.allclose(constraint.total(weight).numpy().ravel(), a.T @ flat, atol=1e-12)
    nearest, *_ = np.linalg.lstsq(a, flat, rcond=1e-10)
    assert np.allclose(constraint.project(weight).numpy().ravel(), nearest, atol=1e-10)
    seen = np.linalg.pinv(a) @ a @ theta.numpy().ravel()  # what of θ any entry depends on
    assert np.allclose(constraint.total(constraint.lift(constraint.divide(theta))).numpy().ravel(), seen, atol=1e-10)
    assert constraint.injective == (np.linalg.matrix_rank(a) == a.shape[1])
    if all(factor.single for factor in constraint.factors):
        assert np.array_equal(constraint.counts().numpy().ravel(), np.diag(a.T @ a))


@given(constraints())
@settings(max_examples=100, deadline=None)
def test_parts_are_orthogonal_projections(constraint: Constraint) -> None:
    """By explicit projectors: the range of A, the entries that A reaches, and the rest."""
    a = dense(constraint)
    weight = random(constraint.shape)
    onto = a @ np.linalg.pinv(a)
    support = np.diag((np.abs(a).sum(1) > 0).astype(float))
    expected = [onto, support - onto, np.eye(len(a)) - support]
    for part, projector in zip(constraint.split(weight), expected, strict=True):
        assert np.allclose(part.numpy().ravel(), projector @ weight.numpy().ravel(), atol=1e-10)
    drift = constraint.drift(weight, variance=0.5, start=constraint.project(random(constraint.shape, 2)))
    norms = [float(np.square(projector @ weight.numpy().ravel()).sum()) for projector in expected]
    assert [drift.shared, drift.unshared, drift.off_local] == pytest.approx(norms, abs=1e-10)
    assert drift.initial == pytest.approx([0.5 * np.trace(projector) for projector in expected], abs=1e-9)
    earlier = onto @ random(constraint.shape, 2).numpy().ravel()
    assert drift.reference == pytest.approx(float(np.square(earlier).sum()), abs=1e-10)
    assert drift.moved == pytest.approx(float(np.square(onto @ weight.numpy().ravel() - earlier).sum()), abs=1e-10)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_one_constraint_after_another_is_the_product_of_their_matrices(data: st.DataObject) -> None:
    inner = data.draw(constraints())
    outer = data.draw(constraints(parent=inner.shape))
    both = inner.then(outer)
    assert both.parent_shape == inner.parent_shape
    assert both.shape == outer.shape
    assert np.allclose(dense(both), dense(outer) @ dense(inner))


@given(constraints())
@settings(max_examples=50, deadline=None)
def test_what_selects_shares_nothing_and_moves_no_number(constraint: Constraint) -> None:
    a = dense(constraint)
    rows, columns = (a > 0).sum(1), (a > 0).sum(0)
    if constraint.selects:
        assert max(rows.max(), columns.max(), a.max()) <= 1
        weight = random(constraint.shape).float()
        assert torch.equal(constraint.split(weight)[1], torch.zeros_like(weight))


def test_labels_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match=r"between -1 .* and 2, got -1 to 3"):
        Incidence.of(np.array([0, 3, -1]), 3)


def test_factors_that_do_not_fit_a_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[2, 3\] has 6 numbers, but the factors are 4"):
        Constraint((2, 3), (4,), [Incidence.identity(4)])


@pytest.mark.parametrize("copies", [3, 7, 49, 289])
def test_the_mean_of_equal_numbers_is_exactly_one_of_them(copies: int) -> None:
    constraint = Constraint((copies, 5), (5,), [Incidence.of(np.zeros(copies), 1), Incidence.identity(5)])
    weight = constraint.lift(torch.randn(5, generator=torch.Generator().manual_seed(0)).double())
    drift = constraint.drift(weight)
    assert (drift.unshared, drift.off_local) == (0, 0)
