"""The kit run on one component that is wrong: registered for a test, and its check called by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest

from anarch_core.errors import AnarchError
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.hooks import RECORDS
from anarch_core.plugin.registry import Registry, get_registry

Kit = Callable[..., Any]
INFOS = {record.kind: record for record in RECORDS.values()}


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry]]:
    """A registry with one component more: a record whose target is the given object."""

    def register(kind: str, target: Any, /, **record: Any) -> Registry:
        module = ModuleType("wrong_plugin")
        module.target = target  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "wrong_plugin", module)
        fields = {"name": "wrong", "summary": "A component with one fault.", "target": "wrong_plugin:target"} | record
        info = INFOS[kind](**fields)
        added = PluginRecord(
            name="wrong", module="wrong_plugin", distribution="anarch-wrong", version="1.0", status=Status.LOADED, components=(info,)
        )
        registry = Registry((*get_registry().plugins, added))
        monkeypatch.setattr("anarch_core.testing.component.get_registry", lambda: registry)
        for module in ("checkpoint.network", "relaxation.verbs"):
            monkeypatch.setattr(f"anarch_core.{module}.get_registry", lambda: registry)
        return registry

    return register


@pytest.fixture
def fails() -> Kit:
    """Asserts that a check fails with a message."""

    def fails(conformance: type, check: str, message: str, *arguments: Any, **settings: Any) -> None:
        kit = type("TestWrong", (conformance,), {"name": "wrong", **settings})()
        with pytest.raises((AssertionError, AnarchError), match=message):
            getattr(kit, check)(*arguments)

    return fails


@pytest.fixture
def passes() -> Kit:
    """Asserts that a check does not fail."""

    def passes(conformance: type, check: str, *arguments: Any, **settings: Any) -> None:
        getattr(type("TestRight", (conformance,), {"name": "wrong", **settings})(), check)(*arguments)

    return passes
