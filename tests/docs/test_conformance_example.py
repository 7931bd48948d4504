"""The example of the page on conformance: a relaxation of a layer that is no convolution, and its tests."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import RelaxationInfo
from anarch_core.plugin.registry import Registry, get_registry

PAGE = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()
CODE, TESTS = re.findall(r"^```python\n(.*?)^```$", PAGE.partition("gives its cases")[2], re.DOTALL | re.MULTILINE)[:2]
ELSEWHERE = {"test_import_is_light", "test_checkpoint_in_a_fresh_process"}
"""What asks other processes, which do not have the module."""


@pytest.fixture
def conformance(monkeypatch: pytest.MonkeyPatch) -> Any:
    module, tests = ModuleType("free_words"), ModuleType("test_free_words")
    monkeypatch.setitem(sys.modules, "free_words", module)
    exec(CODE, vars(module))
    exec(TESTS, vars(tests))
    info = RelaxationInfo(name="free-words", summary="A row for each word.", target="free_words:FreeWords")
    added = PluginRecord(name="words", module="free_words", distribution="words", version="1", status=Status.LOADED, components=(info,))
    registry = Registry((*get_registry().plugins, added))
    for place in ("testing.component", "checkpoint.network", "relaxation.verbs"):
        monkeypatch.setattr(f"anarch_core.{place}.get_registry", lambda: registry)
    return tests.TestFreeWords()


def test_passes_every_check(conformance: Any, tmp_path: Path) -> None:
    checks = {name: getattr(conformance, name) for name in dir(conformance) if name.startswith("test_") and name not in ELSEWHERE}
    assert len(checks) > 30
    for name, check in checks.items():
        if not name.startswith("test_cuda_"):
            check(*([tmp_path] if inspect.signature(check).parameters else []))


def test_draws_what_is_idle_and_what_is_refused(conformance: Any) -> None:
    assert conformance.on_cases(lambda case: None) == {
        "each word has a row of its own",
        "it has 13 rows, more than there are words (12)",
    }
