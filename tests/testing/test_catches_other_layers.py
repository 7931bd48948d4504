"""The kit for relaxations of layers that are no convolutions."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from anarch_core.testing import RelaxationConformance

Kit = Callable[..., Any]
CHECKS = [name for name in dir(RelaxationConformance) if name.startswith("test_")]
OF_RECORDS = ("test_checkpoint_in_a_fresh_process", "test_import_is_light", "test_cuda_device_is_kept")


@pytest.mark.parametrize("check", [check for check in CHECKS if check not in OF_RECORDS])
def test_a_relaxation_of_circulant_layers(passes: Kit, plugin: Kit, circulant: ModuleType, tmp_path: Any, check: str) -> None:
    plugin("relaxation", circulant.CirculantRelaxation)
    arguments = [tmp_path] if check.startswith("test_checkpoint") else []
    passes(circulant.CirculantConformance, check, *arguments, examples=8)
