"""The built-in plugins run the kit as anybody's do."""

from __future__ import annotations

from pathlib import Path

import anarch_plugins

PLUGINS = Path(__file__).parents[1] / "plugins"


def test_every_built_in_plugin_has_a_conformance_test() -> None:
    folders = {module.parent.name for module in Path(anarch_plugins.__file__).parent.glob("*/__init__.py")}
    assert folders == {test.parent.name for test in PLUGINS.glob("*/test_conformance.py")}
