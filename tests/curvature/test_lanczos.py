from __future__ import annotations

import gc

import pytest
import torch

from anarch_core.curvature import basis
from anarch_core.curvature.bounds import least
from anarch_core.curvature.lanczos import extreme_eigenvalues, tridiagonalise
from anarch_core.curvature.leading import eigenpairs
from anarch_core.curvature.operators import MatrixOperator, ProjectedOperator, ScaledOperator
from anarch_core.curvature.risk import HessianOperator, Risk
from anarch_core.errors import ProbeError


def with_spectrum(values, dtype=torch.float64) -> torch.Tensor:
    torch.manual_seed(0)
    rotation, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))
    return (rotation * torch.as_tensor(values, dtype=torch.float64) @ rotation.T).to(dtype)


def decaying(size: int = 300, low: float = -0.2) -> torch.Tensor:
    """A spectrum like a network's: a few large values, a bulk at zero, a short negative tail."""
    return torch.cat([10 * 0.8 ** torch.arange(20.0), torch.linspace(low, 0.05, size - 20)]).double()


@pytest.mark.parametrize("seed", range(20))
def test_extreme_eigenvalues_of_a_network_lie_within_their_own_certificate(case, seed: int) -> None:
    operator = HessianOperator(Risk(case.model, case.inputs, case.targets))
    exact = torch.linalg.eigvalsh(case.dense)
    found = extreme_eigenvalues(operator, generator=torch.Generator().manual_seed(seed), max_products=150)
    for end, value in (("largest", exact[-1]), ("smallest", exact[0])):
        estimate = found[end]
        assert estimate.converged
        assert abs(estimate.value - value) <= estimate.error_bound
        assert estimate.error_estimate <= estimate.residual <= estimate.error_bound <= 0.1 * abs(value)
    assert found["largest"].value == pytest.approx(float(exact[-1]), rel=1e-3)
    assert found["smallest"].value == pytest.approx(float(exact[0]), rel=2e-3)


def test_tight_tolerance_gives_the_dense_eigenvalues(case) -> None:
    operator = HessianOperator(Risk(case.model, case.inputs, case.targets))
    exact = torch.linalg.eigvalsh(case.dense)
    found = extreme_eigenvalues(operator, generator=torch.Generator().manual_seed(0), rtol=1e-5, max_products=400)
    assert found["largest"].value == pytest.approx(float(exact[-1]), rel=1e-9)
    assert found["smallest"].value == pytest.approx(float(exact[0]), rel=1e-6)


def test_both_ends_of_an_indefinite_matrix_whichever_is_larger(generator) -> None:
    operator = MatrixOperator(with_spectrum(-decaying()))
    found = extreme_eigenvalues(operator, generator=generator)
    assert found["smallest"].value == pytest.approx(-10, rel=1e-3)
    assert found["largest"].value == pytest.approx(0.2, rel=2e-2)


def test_largest_eigenvalue_alone_takes_few_products(generator) -> None:
    operator = MatrixOperator(with_spectrum(decaying()))
    estimate = extreme_eigenvalues(operator, generator=generator, ends=("largest",))["largest"]
    assert estimate.value == pytest.approx(10, rel=1e-3)
    assert estimate.products == operator.products <= 12


def test_relative_answers_do_not_depend_on_the_scale_of_the_loss() -> None:
    matrix = with_spectrum(decaying(), torch.float32)
    answers = [
        extreme_eigenvalues(MatrixOperator(matrix * scale), generator=torch.Generator().manual_seed(3))["largest"]
        for scale in (1.0, 2.0**-20)
    ]
    assert answers[0].products == answers[1].products
    assert answers[0].value == pytest.approx(answers[1].value * 2**20, rel=1e-6)


def test_giving_up_is_said(generator) -> None:
    operator = MatrixOperator(with_spectrum(torch.linspace(0.99, 1, 200)))
    estimate = extreme_eigenvalues(operator, generator=generator, rtol=1e-6, max_products=5)["largest"]
    assert not estimate.converged
    assert abs(estimate.value - 1) > 1e-6


def within_bounds(matrix: torch.Tensor, seed: int) -> bool:
    exact = torch.linalg.eigvalsh(matrix.double())
    found = extreme_eigenvalues(MatrixOperator(matrix), generator=torch.Generator().manual_seed(seed), max_products=9)
    return all(abs(found[end].value - float(exact[at])) <= found[end].error_bound for end, at in (("largest", -1), ("smallest", 0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spectrum", [decaying(60), -decaying(60), torch.linspace(-1, 1, 60), torch.linspace(0, 1, 60) ** 8])
def test_bounds_hold_at_whatever_product_it_stops(spectrum, dtype) -> None:
    matrix = with_spectrum(spectrum, dtype)
    assert sum(within_bounds(matrix, seed) for seed in range(60)) >= 59


def test_bounds_hold_for_an_eigenvalue_that_hides_behind_others() -> None:
    """A residual of 1 % is met by the second one before the first shows."""
    values = torch.cat([torch.tensor([1.1, 1.0]), torch.full((998,), 1e-3)]).double()
    start = torch.ones(1000, dtype=torch.float64)
    start[0] = 0.02

    class Unlucky(MatrixOperator):
        def random_unit(self, generator):
            return start / start.norm()

    found = extreme_eigenvalues(Unlucky(torch.diag(values)), generator=torch.Generator(), max_products=2)["largest"]
    assert found.residual < 1e-2
    assert found.value == pytest.approx(1.0, rel=1e-3)
    assert found.error_bound > 0.1
    assert not found.converged


def test_a_diverged_network_is_named(generator) -> None:
    operator = MatrixOperator(torch.full((9, 9), float("nan")))
    with pytest.raises(ProbeError, match="not finite after 1 steps"):
        extreme_eigenvalues(operator, generator=generator)
    with pytest.raises(ProbeError, match="not finite after 1 steps"):
        eigenpairs(operator, 2, generator=generator)


def test_the_zero_matrix_and_the_identity(generator) -> None:
    for value in (0.0, 1.0):
        found = extreme_eigenvalues(MatrixOperator(value * torch.eye(50)), generator=generator)
        assert found["largest"].value == pytest.approx(value, abs=1e-6)
        assert found["smallest"].value == pytest.approx(value, abs=1e-6)
        assert found["largest"].converged


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("basis_size", [None, 14, 150])
def test_leading_eigenpairs_each_once(dtype, basis_size, generator) -> None:
    operator = MatrixOperator(with_spectrum(decaying(), dtype))
    result = eigenpairs(operator, 10, generator=generator, rtol=1e-4, basis_size=basis_size, max_products=400)
    values = torch.tensor([eigenvalue.value for eigenvalue in result.eigenvalues], dtype=torch.float64)
    torch.testing.assert_close(values, decaying()[:10], rtol=1e-5, atol=0)
    assert all(eigenvalue.converged for eigenvalue in result.eigenvalues)
    torch.testing.assert_close(result.vectors @ result.vectors.T, torch.eye(10, dtype=dtype), rtol=0, atol=2e-6)
    for eigenvalue, vector in zip(result.eigenvalues, result.vectors, strict=True):
        residual = float((operator.matrix @ vector - eigenvalue.value * vector).norm())
        assert residual <= 1.01 * eigenvalue.residual + 1000 * torch.finfo(dtype).eps
    assert (result.restarts > 0) == (basis_size == 14)


def test_no_ghosts_among_many_steps(generator) -> None:
    operator = MatrixOperator(with_spectrum(decaying(), torch.float32))
    basis = torch.empty(150, operator.size)
    entries = list(tridiagonalise(operator, operator.random_unit(generator), basis=basis))
    assert len(entries) == 150
    torch.testing.assert_close(basis @ basis.T, torch.eye(150), rtol=0, atol=1e-5)


def test_multiple_eigenvalues_are_counted(generator) -> None:
    values = torch.tensor([3.0, 3.0, 3.0, *([1.0] * 20), *([0.0] * 20)], dtype=torch.float64)
    result = eigenpairs(MatrixOperator(with_spectrum(values)), 4, generator=generator, rtol=1e-6)
    assert [round(eigenvalue.value, 9) for eigenvalue in result.eigenvalues] == [3, 3, 3, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("copies", [2, 3, 7])
def test_copies_of_an_eigenvalue_are_found_among_distinct_ones(copies, dtype) -> None:
    values = torch.cat([torch.full((copies,), 3.0), torch.linspace(-1, 1, 200 - copies)])
    matrix = with_spectrum(values, dtype)
    for seed in range(3):
        result = eigenpairs(MatrixOperator(matrix), copies + 1, generator=torch.Generator().manual_seed(seed))
        found = [eigenvalue.value for eigenvalue in result.eigenvalues]
        assert found == pytest.approx([3.0] * copies + [1.0], rel=1e-2)
        for eigenvalue, exact in zip(result.eigenvalues, [3.0] * copies + [1.0], strict=True):
            assert eigenvalue.converged
            assert abs(eigenvalue.value - exact) <= eigenvalue.error_bound


def test_bounds_of_leading_eigenvalues_hold_by_rank_even_where_it_gives_up() -> None:
    matrix = with_spectrum(torch.linspace(-1, 1, 200), torch.float32)
    exact = torch.linalg.eigvalsh(matrix.double()).flip(0)[:5].tolist()
    for products in (6, 20, 60, 400):
        result = eigenpairs(MatrixOperator(matrix), 5, generator=torch.Generator().manual_seed(1), max_products=products)
        errors = [abs(eigenvalue.value - value) for eigenvalue, value in zip(result.eigenvalues, exact, strict=True)]
        assert all(error <= eigenvalue.error_bound < 1000 for error, eigenvalue in zip(errors, result.eigenvalues, strict=True))
    assert all(eigenvalue.converged for eigenvalue in result.eigenvalues)


def test_smallest_end_comes_most_negative_first(generator) -> None:
    result = eigenpairs(MatrixOperator(with_spectrum(-decaying())), 3, end="smallest", generator=generator, rtol=1e-5)
    assert [eigenvalue.value for eigenvalue in result.eigenvalues] == pytest.approx([-10, -8, -6.4], rel=1e-6)


def test_all_eigenvalues_of_a_small_matrix(generator) -> None:
    exact = torch.linspace(-1, 3, 12)
    result = eigenpairs(MatrixOperator(with_spectrum(exact)), 12, generator=generator)
    assert [eigenvalue.value for eigenvalue in result.eigenvalues] == pytest.approx(exact.flip(0).tolist(), abs=1e-12)


def test_asking_for_more_than_fits_is_refused(generator) -> None:
    with pytest.raises(ValueError, match=r"cannot find 5 eigenvalues .* basis of 6 vectors \(needs 7\)"):
        eigenpairs(MatrixOperator(torch.eye(50)), 5, generator=generator, basis_size=6)


@pytest.mark.parametrize(("free", "device"), [(8 * 5 * 30, "meta"), (8 * 5 * 30 - 1, "cpu")])
def test_a_basis_lies_beside_the_matrix_if_half_of_the_memory_there_will_do_and_else_in_the_hosts(
    monkeypatch, free: int, device: str
) -> None:
    monkeypatch.setattr(basis, "available_bytes", lambda _: free)
    operator = MatrixOperator(torch.empty(30, 30, device="meta"))
    assert basis.empty_basis(operator, 5).device.type == device


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_eigenpairs_of_a_matrix_on_a_device_with_the_basis_in_the_hosts_memory(monkeypatch) -> None:
    monkeypatch.setattr(basis, "available_bytes", lambda _: 0)
    operator = MatrixOperator(with_spectrum(decaying()).cuda())
    result = eigenpairs(operator, 10, generator=torch.Generator("cuda").manual_seed(0), rtol=1e-4, basis_size=14, max_products=400)
    assert [eigenvalue.value for eigenvalue in result.eigenvalues] == pytest.approx(decaying()[:10].tolist(), rel=1e-5)
    assert result.vectors.device.type == "cpu"


class Counting(MatrixOperator):
    """Notes how many vectors of its size are alive, the most at any product."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__(matrix)
        self.most = 0

    def _add_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        alive = {t.data_ptr() for t in gc.get_objects() if type(t) is torch.Tensor and t.shape == (self.size,)}
        self.most = max(self.most, len(alive))
        super()._add_product(vector, out)


def test_an_extreme_eigenvalue_takes_two_vectors(generator) -> None:
    operator = Counting(with_spectrum(decaying(137)))
    extreme_eigenvalues(operator, generator=generator, ends=("largest",))
    assert operator.most == 2


def test_projected_and_scaled_operators(generator) -> None:
    matrix = with_spectrum(torch.linspace(-1, 4, 30))
    keep = (torch.arange(30) < 10).double()
    projected = extreme_eigenvalues(ProjectedOperator(MatrixOperator(matrix), lambda vector: vector * keep), generator=generator, rtol=1e-5)
    exact = torch.linalg.eigvalsh(matrix[:10, :10])
    assert projected["largest"].value == pytest.approx(float(exact[-1]), rel=1e-8)
    scale = torch.linspace(0.5, 2, 30, dtype=torch.float64)
    scaled = extreme_eigenvalues(ScaledOperator(MatrixOperator(matrix), scale), generator=generator, rtol=1e-5)
    assert scaled["largest"].value == pytest.approx(float(torch.linalg.eigvalsh(scale[:, None] * matrix * scale)[-1]), rel=1e-8)


def test_operators_refuse_what_is_not_a_vector_of_theirs() -> None:
    with pytest.raises(ValueError, match=r"expected a vector of shape \(3,\) and torch.float32, got \(4,\)"):
        MatrixOperator(torch.eye(3)) @ torch.ones(4)


@pytest.mark.parametrize("true", [lambda number: False, lambda number: number > 1e200], ids=["nothing", "what is beyond squares"])
def test_the_search_for_a_bound_ends_where_it_is_far(true) -> None:
    """As of numbers that are not finite, or hold none."""
    assert least(true, 1e-12) > 1e200


def test_the_search_for_a_bound_ends_where_it_is_next_to_nothing() -> None:
    assert 3e-308 < least(lambda number: number > 3e-308, 0.0) < 3e-307
