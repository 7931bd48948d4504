"""Marks for the checks of the conformance kit, which declares none: plugins of others need not know our markers."""

from __future__ import annotations

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    name = getattr(item, "originalname", item.name)
    if name.startswith("test_cuda_"):
        item.add_marker("gpu")
    if name == "test_checkpoint_in_a_fresh_process":
        item.add_marker("slow")
