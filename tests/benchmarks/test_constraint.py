"""The norms of a constraint's drift are those of labels listed for every entry."""

from __future__ import annotations

import constraint
import pytest
import torch


@pytest.mark.parametrize("name", list(constraint.CONSTRAINTS))
def test_norms_by_labels_are_the_drift(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint, "CHANNELS", 5)
    monkeypatch.setattr(constraint, "SIZE", 7)
    small = constraint.CONSTRAINTS[name]()
    values = torch.randn(small.shape)
    expected = small.drift(values)
    found = constraint.norms_by_labels(values.flatten(), *constraint.of_every_entry(small))
    assert found == pytest.approx((expected.shared, expected.unshared, expected.off_local), rel=1e-5)
