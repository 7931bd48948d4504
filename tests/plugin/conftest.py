"""Distributions to be found: a module and a ``.dist-info`` on the path."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a distribution with one module, which is its plugin."""
    for name in ("ANARCH_DISABLE_PLUGINS", "ANARCH_NO_PLUGINS", "ANARCH_STRICT_PLUGINS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    modules = []

    def install(
        distribution: str, source: str, *, plugin: str | None = None, module: str | None = None, version: str = "1.0", site: str = "site"
    ) -> None:
        folder = tmp_path / site
        module = module or distribution.replace("-", "_")
        info = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[anarch.plugins]\n{plugin or distribution} = {module}\n")
        (folder / f"{module.partition(':')[0]}.py").write_text(textwrap.dedent(source))
        modules.append(module)
        if str(folder) not in sys.path:
            monkeypatch.syspath_prepend(folder)

    yield install
    for module in modules:
        sys.modules.pop(module, None)
