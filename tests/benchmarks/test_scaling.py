"""Scaling, at sizes where it takes seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import scaling
from measure import Machine

SMALL = {"width": 4, "side": 28, "batch": 16}


@pytest.fixture
def results(monkeypatch):
    monkeypatch.setattr(scaling, "SWEEPS", {"width": (3, 4), "side": (28,), "batch": (16,)})
    monkeypatch.setattr(scaling, "Point", lambda **given: POINT(**{**SMALL, **given}))
    points = {point for axis in scaling.SWEEPS for point in scaling.sweep(axis)}
    before = {point: scaling.expected(point) for point in points}
    return {
        point: (found, scaling.Measured(seconds=[0.5], used=found.memory.used, held=found.memory.held)) for point, found in before.items()
    }


POINT = scaling.Point


@pytest.mark.parametrize("network", scaling.NETWORKS)
def test_allocations_are_foretold(network):
    point = POINT(network=network, width=8, side=32, batch=64)
    loop = scaling.training(point)
    loop.advance(1)
    assert scaling.allocated(loop) == pytest.approx(scaling.expected(point).memory.used, rel=0.06)


def test_work_is_that_of_the_products():
    """Three products for every weight, two in the first layer; an LCN's weights that would meet padding are not there."""
    flops = {network: scaling.expected(POINT(network=network, width=64, side=32, batch=1)).flops for network in ("conv", "efcn", "lcn")}
    dense = 2 * (2 * 3 * 32**2 * 64 * 17**2 + 3 * 64 * 8**2 * 64 * 8**2 + 3 * 64 * 3**2 * 64 * 3**2)
    assert flops["efcn"] == dense
    assert flops["lcn"] < flops["conv"] < flops["efcn"]


def test_results_are_tabulated_and_drawn(results, tmp_path: Path):
    table = scaling.table("width", results, Machine(threads=1, flops=1e11, bytes=1e10))
    assert [row[:3] for row in table.rows[:2]] == [("3", "CNN", "500 ms"), ("3", "eFCN", "500 ms")]
    assert all(row[6] == row[9] == "1.00" for row in table.rows)
    scaling.plot(results, tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.svg").stat().st_size > 10_000


def test_the_largest_side_is_the_last_that_fits():
    side = scaling.largest_side("efcn", 1e9, batch=10)
    fits, over = (scaling.expected(POINT(network="efcn", side=size, batch=10)).memory.held for size in (side, side + 8))
    assert fits <= 1e9 < over
