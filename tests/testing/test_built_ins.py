"""The built-in plugins run the kit as anybody's do."""

from __future__ import annotations

from pathlib import Path

import anarch_plugins

PLUGINS = Path(__file__).parents[1] / "plugins"


def test_every_built_in_plugin_has_a_conformance_test() -> None:
    root = Path(anarch_plugins.__file__).parent
    folders = {module.parent.relative_to(root) for module in root.glob("*/*/__init__.py")}
    assert folders == {test.parent.relative_to(PLUGINS) for test in PLUGINS.glob("*/*/test_conformance.py")}
