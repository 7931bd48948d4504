"""Marks for the checks of the conformance kit, which declares none: plugins of others need not know our markers."""

from __future__ import annotations

import os
import sys
from typing import Any

import hypothesis
import pytest

from anarch_core.testing import RelaxationConformance


@pytest.fixture(autouse=True)
def _generated(monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config) -> None:
    """What the kit generates is as much as the profile says, and follows the seed, as for every other test here."""
    monkeypatch.setattr(RelaxationConformance, "examples", hypothesis.settings.default.max_examples)
    monkeypatch.setattr(RelaxationConformance, "seed", int(pytestconfig.getoption("--hypothesis-seed")))


@pytest.fixture(autouse=True)
def _quick_processes(monkeypatch: pytest.MonkeyPatch, python: Any) -> None:
    """The kit's fresh processes, without waiting for PyTorch to be imported once more; examples and scaffolds have the real ones."""

    def in_fresh_process(code: str, *arguments: str) -> str:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        ran = python("-c", code, *arguments, environment=environment)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    monkeypatch.setattr("anarch_core.testing.relaxation.in_fresh_process", in_fresh_process)


def pytest_itemcollected(item: pytest.Function) -> None:
    name = getattr(item, "originalname", item.name)
    if name.startswith("test_cuda_"):
        item.add_marker("gpu")
    if "on_generated" in item.function.__code__.co_names:
        item.add_marker("hypothesis")
    if name == "test_checkpoint_in_a_fresh_process":
        item.add_marker("slow")
