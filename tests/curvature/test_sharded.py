"""The curvature of a network that several processes hold together is, on all of them, that of the network that one process holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.curvature import (
    AbstractOperator,
    GaussNewtonOperator,
    HessianOperator,
    Neighbourhood,
    ProjectedOperator,
    Risk,
    ScaledOperator,
    eigenpairs,
    extreme_eigenvalues,
    spectral_density,
    tangent_kernel,
    trace,
)
from anarch_core.curvature.bounds import End
from anarch_core.curvature.vectors import vectors_of
from anarch_core.errors import ProbeError
from anarch_core.sharding import Shards, cuts_of
from anarch_core.testing.together import together

FAMILIES = ("efcn", "lcn", "shared", "tiled")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(9, 2, 6, 6, dtype=torch.float64, generator=seeded(3)), torch.arange(9) % 4


def both(shards: Shards, family: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    """A relaxed network that has moved in every direction, as one process holds it and as all do together."""
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 5, 3, padding=1), nn.Flatten())
    cnn.append(nn.Linear(45, 4)).to(dtype)
    example = samples()[0][:1].to(dtype)
    alone, shared = (anarch_core.relax(cnn, family, example_input=example, shards=way, check=False).model for way in (None, shards))
    with torch.no_grad():
        for place, parameter in enumerate(alone.parameters()):
            parameter.add_(torch.randn(parameter.shape, dtype=dtype, generator=seeded(place)), alpha=0.1)
    cuts = cuts_of(shared)
    with torch.no_grad():
        for name, parameter in shared.named_parameters():
            parameter.copy_(own(cuts, name, alone.get_parameter(name)).view(parameter.shape))
    return alone, shared


def own(cuts: Any, name: str, whole: torch.Tensor) -> torch.Tensor:
    return cuts[name].of_whole(whole) if name in cuts else whole.reshape(-1)


def part_of(risk: Risk, whole: Risk, vector: torch.Tensor) -> torch.Tensor:
    """What this process holds of a flat vector of the whole."""
    cuts, views = cuts_of(risk.model), whole.named_views(vector)
    return torch.cat([own(cuts, name, views[name]) for name in risk.names])


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def differentiated(shards: Shards, family: str, batch_size: int) -> dict[str, float]:
    alone, shared = (Risk(model, *samples(), batch_size=batch_size) for model in both(shards, family))
    along = torch.randn(alone.size, dtype=torch.float64, generator=seeded(1))
    assert (shared.size, shared.vectors.size) == (alone.size, alone.size)
    assert shared.vectors.length < alone.size
    found = {
        "value": abs(shared.value() / alone.value() - 1),
        "gradient": apart(shared.gradient(), part_of(shared, alone, alone.gradient())),
    }
    for operator in HessianOperator, GaussNewtonOperator:
        product = operator(shared) @ part_of(shared, alone, along)
        found[operator.__name__] = apart(product, part_of(shared, alone, operator(alone) @ along))
    return found


@pytest.mark.parametrize(("processes", "batch_size"), [(2, 9), (3, 4)])
@pytest.mark.parametrize("family", FAMILIES)
def test_derivatives_are_those_of_one_process(family: str, processes: int, batch_size: int) -> None:
    for found in together(processes, differentiated, family, batch_size):
        assert max(found.values()) < 1e-12


def multiplied(shards: Shards, family: str, dtype: torch.dtype) -> dict[str, Any]:
    alone, shared = (
        Risk(model, *(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in samples()))
        for model in both(shards, family, dtype)
    )
    whole = torch.randn(5, alone.size, dtype=dtype, generator=seeded(2))
    part = torch.stack([part_of(shared, alone, vector) for vector in whole])
    one, other = alone.vectors, shared.vectors
    found = {
        "dot": ([one.dot(whole[0], whole[1])], [other.dot(part[0], part[1])]),
        "norm": ([float(one.norm(whole[0]))], [float(other.norm(part[0]))]),
        "gram": (one.gram(list(whole[:2])).tolist(), other.gram(list(part[:2])).tolist()),
        "components": (one.components(whole, whole[1]).tolist(), other.components(part, part[1]).tolist()),
    }  # fmt: skip
    empty = other.gram([]).shape == (0, 0) and other.components(part[:0], part[0]).shape == (0,)
    return {"found": found, "empty": empty}


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
@pytest.mark.parametrize("family", FAMILIES)
def test_products_count_every_number_once(family: str, dtype: torch.dtype, close: float) -> None:
    first, second = together(2, multiplied, family, dtype)
    assert first["empty"]
    assert second["empty"]
    for name, (expected, found) in first["found"].items():
        assert torch.tensor(found) == pytest.approx(torch.tensor(expected), rel=close, abs=close), name
        assert second["found"][name][1] == found  # to the last bit


def drawn(shards: Shards, family: str, dtype: torch.dtype, at_once: int) -> bool:
    alone, shared = both(shards, family, dtype)
    whole, part = (vectors_of(model, dict(model.named_parameters())) for model in (alone, shared))
    risks = [Risk(model, *samples()) for model in (alone, shared)]
    same = True
    with patch("anarch_core.sharding.draws.DRAWN", at_once):
        for draw in "normal", "signs":
            generators = seeded(4), seeded(4)
            expected, found = (getattr(vectors, draw)(generator) for vectors, generator in zip((whole, part), generators, strict=True))
            same = same and torch.equal(found, part_of(risks[1], risks[0], expected)) and found.dtype == dtype
            same = same and torch.equal(*(generator.get_state() for generator in generators))
    return same


@pytest.mark.parametrize("at_once", [16, 4096, 1 << 20])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("family", ["efcn", "lcn"])
def test_random_vectors_have_the_bits_of_one_process_however_many_are_drawn_at_once(family: str, dtype: torch.dtype, at_once: int) -> None:
    assert all(together(2, drawn, family, dtype, at_once))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [5, 16, 31, 32, 33, 79, 80, 81, 1003])
def test_stretches_of_multiples_of_sixteen_are_what_is_drawn_at_once(size: int, dtype: torch.dtype) -> None:
    """What drawing the parts of a vector rests on."""
    whole, generator = torch.randn(size, dtype=dtype, generator=seeded(7)), seeded(7)
    pieces = [16] * ((size - 16) // 16)
    pieces.append(size - sum(pieces))
    drawn = torch.cat([torch.randn(piece, dtype=dtype, generator=generator) for piece in pieces])
    assert torch.equal(drawn, whole)


def spectrum(operator: AbstractOperator) -> dict[str, Any]:
    ends: tuple[End, ...] = ("largest",) if isinstance(operator, GaussNewtonOperator) else ("largest", "smallest")  # the other is zero
    extremes = extreme_eigenvalues(operator, generator=seeded(1), rtol=1e-3, ends=ends)
    pairs = eigenpairs(operator, 3, generator=seeded(2), rtol=1e-3, basis_size=8)
    estimate = trace(operator, generator=seeded(3), samples=2, leading=pairs)
    densities = [spectral_density(operator, generator=seeded(4), probes=2, steps=5, reorthogonalise=kept) for kept in (False, True)]
    found = {end: (eigenvalue.value, eigenvalue.products) for end, eigenvalue in extremes.items()}
    return {
        **found,
        "leading": [eigenvalue.value for eigenvalue in pairs.eigenvalues],
        "counts": [pairs.products, pairs.restarts, operator.products],
        "trace": [estimate.value, estimate.standard_error],
        "density": torch.stack([torch.stack([density.nodes, density.weights]) for density in densities]).flatten().tolist(),
    }


def spectra(shards: Shards, family: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    risks = [Risk(model, *samples()) for model in both(shards, family)]
    made: Callable[[Risk], AbstractOperator] = GaussNewtonOperator if kind == "gauss-newton" else HessianOperator
    found = []
    for risk in risks:
        operator = made(risk)
        if kind == "projected":
            scale = torch.linspace(1, 2, risks[0].size, dtype=torch.float64)
            keep = (scale < 1.7).double()
            if risk is risks[1]:
                scale, keep = (part_of(risk, risks[0], vector) for vector in (scale, keep))
            operator = ProjectedOperator(ScaledOperator(operator, scale), keep.mul)
        found.append(spectrum(operator))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("family", "kind", "processes"),
    [(family, "hessian", 2) for family in FAMILIES] + [("efcn", "gauss-newton", 2), ("efcn", "projected", 2), ("lcn", "projected", 3)],
)
def test_spectra_are_those_of_one_process_from_the_same_seed(family: str, kind: str, processes: int) -> None:
    found = together(processes, spectra, family, kind)
    alone, shared = found[0]
    for name, expected in alone.items():
        assert torch.tensor(shared[name]) == pytest.approx(torch.tensor(expected), rel=1e-10, abs=1e-12), name
    assert all(other == shared for _, other in found)  # to the last bit


def refused(shards: Shards, what: str) -> str:
    shared = both(shards, "efcn")[1]
    try:
        tangent_kernel(shared, samples()[0]) if what == "kernel" else Neighbourhood(Risk(shared, *samples()))
    except ProbeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("kernel", "there is no tangent kernel of a network that 2 processes hold together; measure it in one process"),
        ("neighbourhood", "the networks around one that 2 processes hold together have no lengths here; measure it in one process"),
    ],
)
def test_what_needs_the_whole_is_refused(what: str, expected: str) -> None:
    assert together(2, refused, what) == [expected, expected]
