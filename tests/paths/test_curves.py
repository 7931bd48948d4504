from __future__ import annotations

import itertools
import math

import pytest
import torch

from anarch_core.errors import ProbeError
from anarch_core.paths.curves import Curvilinear, arc_length, band_tangent, nudged_elastic_band, string
from anarch_core.paths.curves import linear as line_of_parts


def quiet(done: int, total: int) -> None:
    return None


def linear(a: torch.Tensor, b: torch.Tensor, points: int) -> torch.Tensor:
    return line_of_parts([a], [b], points)


def curvilinear(a: torch.Tensor, b: torch.Tensor, points: int, sizes: list[int]) -> torch.Tensor:
    curve, chain = Curvilinear(torch.split(a, sizes), torch.split(b, sizes)), torch.empty(points, len(a))
    for index, row in enumerate(chain):
        curve(index / (points - 1), torch.split(row, sizes))
    return chain


def mueller_brown(point: torch.Tensor, place: float = 0.0) -> tuple[float, torch.Tensor]:
    """The usual test surface for bands: two deep minima; the higher saddle between them is at (-0.822, 0.624), of height -40.66."""
    x, y = point.tolist()
    energy = slope_x = slope_y = 0.0
    for h, a, b, c, u, v in (
        (-200, -1, 0, -10, 1, 0),
        (-100, -1, 0, -10, 0, 0.5),
        (-170, -6.5, 11, -6.5, -0.5, 1.5),
        (15, 0.7, 0.6, 0.7, -1, 1),
    ):
        term = h * math.exp(a * (x - u) ** 2 + b * (x - u) * (y - v) + c * (y - v) ** 2)
        energy += term
        slope_x += term * (2 * a * (x - u) + b * (y - v))
        slope_y += term * (2 * c * (y - v) + b * (x - u))
    return energy, torch.tensor([slope_x, slope_y], dtype=point.dtype)


@pytest.mark.parametrize("make", [linear, lambda a, b, n: curvilinear(a, b, n, [3, 4])])
def test_ends_are_those_given_to_the_bit(make) -> None:
    a, b = torch.randn(7), torch.randn(7)
    chain = make(a, b, 5)
    assert chain.shape == (5, 7)
    assert torch.equal(chain[0], a)
    assert torch.equal(chain[-1], b)
    torch.testing.assert_close(linear(a, b, 5)[2], (a + b) / 2)


def test_curvilinear_points_have_interpolated_norms_tensor_by_tensor() -> None:
    a, b = torch.randn(7), torch.cat([torch.randn(3), torch.zeros(4)])
    for t, point in zip((0.25, 0.5, 0.75), curvilinear(a, b, 5, [3, 4])[1:-1], strict=True):
        for rows in (slice(0, 3), slice(3, 7)):
            assert float(point[rows].norm()) == pytest.approx((1 - t) * float(a[rows].norm()) + t * float(b[rows].norm()), rel=1e-5)


def test_tensors_that_are_zero_at_both_ends_stay_zero() -> None:
    chain = curvilinear(torch.zeros(4), torch.zeros(4), 4, [4])
    assert not chain.any()


@pytest.mark.parametrize("stiffness", [0.1, 1, 10, 1e6])
def test_the_string_is_stable_at_any_stiffness_and_straightens(stiffness: float) -> None:
    torch.manual_seed(0)
    chain = linear(torch.zeros(6), torch.ones(6), 7)
    chain[1:-1] += torch.randn(5, 6)
    flat = itertools.repeat(lambda point, place: (0.0, torch.zeros_like(point)))
    string(chain, flat, lr=0.1, stiffness=stiffness, steps=3000, progress=quiet)
    torch.testing.assert_close(chain, linear(torch.zeros(6), torch.ones(6), 7), atol=1e-3, rtol=0)


def test_the_string_settles_where_slope_and_springs_balance() -> None:
    torch.manual_seed(0)
    curvature = torch.tensor([0.3, 2.0], dtype=torch.float64)
    chain = linear(torch.tensor([-1.0, 1.0]).double(), torch.tensor([1.0, 1.0]).double(), 6)
    string(chain, itertools.repeat(lambda x, place: (0.0, curvature * x)), lr=0.1, stiffness=0.7, steps=3000, progress=quiet)
    force = curvature * chain[1:-1] - 0.7 * (chain[2:] + chain[:-2] - 2 * chain[1:-1])
    assert float(force.abs().max()) < 1e-9


def test_the_band_finds_the_saddle_of_mueller_and_brown() -> None:
    a, b = torch.tensor([-0.558, 1.442], dtype=torch.float64), torch.tensor([0.623, 0.028], dtype=torch.float64)
    chain = linear(a, b, 15)
    nudged_elastic_band(chain, itertools.repeat(mueller_brown), lr=3e-4, stiffness=500, steps=400, progress=quiet)
    dense = torch.cat([linear(one, other, 20) for one, other in itertools.pairwise(chain)])
    energies = [mueller_brown(point)[0] for point in dense]
    assert max(energies) == pytest.approx(-40.66, abs=1)
    top = dense[energies.index(max(energies))]
    assert float((top - torch.tensor([-0.822, 0.624])).norm()) < 0.05
    gaps = [float((after - before).norm()) for before, after in itertools.pairwise(chain)]
    assert max(gaps) < 1.5 * min(gaps)


def test_the_band_refuses_unstable_springs() -> None:
    chain = linear(torch.zeros(2), torch.ones(2), 4)
    with pytest.raises(ProbeError, match=r"lr \* stiffness = 0.6 is above 0.5"):
        nudged_elastic_band(chain, itertools.repeat(mueller_brown), lr=0.1, stiffness=6, steps=1, progress=quiet)


def test_the_tangent_turns_continuously_at_an_extremum() -> None:
    ahead, behind = torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0])
    for rising in (True, False):
        step = 1e-4 if rising else -1e-4
        before = band_tangent(ahead, behind, [0.0, 1.0, 1.0 + step])
        beyond = band_tangent(ahead, behind, [0.0, 1.0, 1.0 - step])
        assert float((before - beyond).norm()) < 1e-3
    assert torch.equal(band_tangent(ahead, behind, [0.0, 1.0, 2.0]), ahead)
    assert torch.equal(band_tangent(ahead, behind, [2.0, 1.0, 0.0]), behind)
    assert float(band_tangent(ahead, behind, [1.0, 1.0, 1.0]).norm()) == pytest.approx(1)


def test_arc_length_runs_from_zero_to_one() -> None:
    assert arc_length([5, 5]) == pytest.approx([0, 0.5, 1])
    assert arc_length([1, 3]) == [0, 0.25, 1]
    assert arc_length([0, 0]) == [0, 0.5, 1]
    assert math.isclose(arc_length(torch.rand(9).tolist())[-1], 1)


@pytest.mark.parametrize("descend", [string, nudged_elastic_band])
def test_gradients_are_taken_at_places_in_the_chain(descend) -> None:
    chain = linear(torch.zeros(2), torch.ones(2), 5)
    seen = []

    def gradient(point: torch.Tensor, place: float) -> tuple[float, torch.Tensor]:
        seen.append((place, float(point[0])))
        return 0.0, torch.zeros_like(point)

    descend(chain, itertools.repeat(gradient), lr=0.1, stiffness=1, steps=1, progress=quiet)
    places = [0.25, 0.5, 0.75] if descend is string else [0, 0.25, 0.5, 0.75, 1]
    assert seen == [(place, pytest.approx(place)) for place in places]


def test_a_chain_that_is_not_finite_has_evenly_spaced_positions() -> None:
    assert arc_length([1.0, math.nan, math.nan, 1.0]) == [0, 0.25, 0.5, 0.75, 1]
    assert arc_length([1.0, math.inf, math.inf, 1.0]) == [0, 0.25, 0.5, 0.75, 1]
