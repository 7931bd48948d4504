"""``docs/plugins.md`` says what is true, and its plugin works."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from anarch_core.plugin import hookspecs, registry
from anarch_core.plugin.diagnosis import plugin_problems
from anarch_core.plugin.discovery import RECORDS, Status
from anarch_core.plugin.registry import Registry
from anarch_core.probe.base import ProbeContext

TEXT = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()


def test_the_example_is_a_plugin_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = dict(re.findall(r"^`([\w./]+)` — .*?\n\n```\w+\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
    info = tmp_path / "anarch_norms-0.1.0.dist-info"
    (tmp_path / "anarch_norms").mkdir()
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: anarch-norms\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[anarch.plugins]\nnorms = anarch_norms\n")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    found = Registry.load()
    (plugin,) = [plugin for plugin in found.plugins if plugin.distribution == "anarch-norms"]
    assert plugin_problems(found, plugin, targets=True) == []
    model = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(model.weight, 3.0)
    torch.nn.init.constant_(model.bias, -1.0)
    probe = found.create("probe", "norms", {"order": 1})
    assert probe.measure(ProbeContext(model=model)).scalars == {"norm": 7.0}
    for name in [name for name in sys.modules if name.startswith("anarch_norms")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("hook", RECORDS)
def test_every_hook_is_in_the_table(hook: str) -> None:
    assert hasattr(hookspecs, hook)
    assert f"| `{hook}()` | `{RECORDS[hook].__name__}` |" in TEXT


@pytest.mark.parametrize("status", Status)
def test_every_status_is_explained(status: Status) -> None:
    assert f"| `{status}` |" in TEXT


def test_every_variable_is_explained() -> None:
    variables = re.findall(r"ANARCH_[A-Z_]+", Path(registry.__file__).read_text())
    assert set(variables) == set(re.findall(r"^\| `(ANARCH_[A-Z_]+)` \|", TEXT, re.MULTILINE))
