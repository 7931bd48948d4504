"""The methods compared look for the same number, and say what it took."""

from __future__ import annotations

import functools
from pathlib import Path

import largest_eigenvalue
import measure
import pytest
import torch
from torch import nn

from anarch_core.curvature.risk import Risk


@pytest.fixture
def risk() -> Risk:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3))
    return Risk(model, torch.randn(40, 8), torch.arange(40) % 3)


def test_every_method_finds_the_largest_eigenvalue(risk: Risk, monkeypatch) -> None:
    own = {name: method for name, method in largest_eigenvalue.methods().items() if "PyHessian" not in name and "curvlinops" not in name}
    monkeypatch.setattr(largest_eigenvalue, "methods", lambda: own)
    table = largest_eigenvalue.compared("a tiny network", risk, dict.fromkeys(own, "2.0"), seeds=2)
    assert [row[0] for row in table.rows] == list(own)
    columns = dict(zip(table.columns, zip(*table.rows, strict=True), strict=True))
    assert all(float(error) < 2e-2 for error in columns["worst error"])
    assert all(float(spread.split()[0]) >= 3 for spread in columns["products"])
    assert table.markdown().splitlines()[0].startswith("### largest eigenvalue, a tiny network: 147 parameters, 40 samples")


def test_memory_is_counted_in_vectors_as_large_as_the_network(monkeypatch) -> None:
    monkeypatch.setattr(largest_eigenvalue, "WIDTH", 90)
    monkeypatch.setattr(largest_eigenvalue, "peak", lambda build: 5 * 4 * sum(p.numel() for p in build().args[0].parameters))
    expected = 5 * (1 - (10 * 10 + 10 + 10 * 10 + 10) / (90 * 90 + 90 + 10 * 90 + 10)) - 1
    assert largest_eigenvalue.held(largest_eigenvalue.power) == f"{expected:.1f}"


def test_peak_memory_of_a_step_is_measured_in_a_process_of_its_own() -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux")
    build = functools.partial(functools.partial, torch.ones, 2**25, dtype=torch.uint8)
    assert 0.9 * 2**25 < measure.peak(build) < 1.5 * 2**25
