"""``docs/plugins.md`` says what is true, and its plugin works."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from anarch_core.config.resolution import resolve
from anarch_core.models import build_model
from anarch_core.plugin import hookspecs, registry
from anarch_core.plugin.diagnosis import plugin_problems
from anarch_core.plugin.discovery import Status
from anarch_core.plugin.hooks import RECORDS
from anarch_core.plugin.registry import Registry
from anarch_core.probe.base import ProbeContext
from anarch_core.relaxation.verbs import relax

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


def test_the_zoo_makes_models_of_another_package_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = ModuleType("timm")
    timm.list_models = lambda: ["mixer_b16", "resnet18"]  # type: ignore[attr-defined]
    timm.create_model = lambda name, in_chans, num_classes: nn.Sequential(  # type: ignore[attr-defined]
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(in_chans, num_classes)
    )
    monkeypatch.setitem(sys.modules, "timm", timm)
    files = dict(re.findall(r"^```python\n# (anarch_timm/[\w.]+)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
    info = tmp_path / "anarch_timm-0.1.0.dist-info"
    (tmp_path / "anarch_timm").mkdir()
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: anarch-timm\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[anarch.plugins]\ntimm = anarch_timm\n")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    found = Registry.load()
    config = resolve({"data": "cifar10", "model": "mixer_b16"}, registry=found)
    assert (config.model, config.options["timm"]) == ("timm:mixer_b16", {"model": "mixer_b16"})
    model = build_model("mixer_b16", input_shape=(3, 8, 8), classes=5, registry=found)
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    for name in [name for name in sys.modules if name.startswith("anarch_timm")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize("hook", RECORDS)
def test_every_hook_is_in_the_table(hook: str) -> None:
    assert hasattr(hookspecs, hook)
    assert f"| `{hook}()` | `{RECORDS[hook].__name__}` |" in TEXT


@pytest.mark.parametrize("status", Status)
def test_every_status_is_explained(status: Status) -> None:
    assert f"| `{status}` |" in TEXT


def test_every_variable_is_explained() -> None:
    sources = "".join(path.read_text() for path in Path(registry.__file__).parent.glob("*.py"))
    variables = re.findall(r"ANARCH_[A-Z_]+", sources)
    assert set(variables) == set(re.findall(r"^\| `(ANARCH_[A-Z_]+)` \|", TEXT, re.MULTILINE))


def test_the_schedule_of_the_example_switches_once_at_the_edge():
    block = re.search(r"```python\n(from anarch_core.schedule.*?)```", TEXT, re.DOTALL)[1]
    names: dict[str, type] = {}
    exec(block, names)
    schedule = names["EdgeOfStability"](None)
    rows = [{"learning_rate": 0.1}, *({"learning_rate": 0.1, "hessian.lambda_max": value} for value in (5.0, 21.0, 22.0, 3.0, 30.0))]
    assert [length for length in range(1, 7) if schedule.switches_now(rows[:length])] == [3]


def test_a_layer_of_the_lattice_has_its_piece_made_for_it():
    names: dict[str, type] = {}
    exec(re.search(r"```python\n(from anarch_core.layers import LatticeLayer.*?)```", TEXT, re.DOTALL)[1], names)
    layer = relax(nn.Conv1d(2, 3, 3), "lcn", example_input=torch.zeros(1, 2, 5)).model
    piece = names["RowLayer"].piece(layer)
    assert piece.input_shape == (2, 5)
    assert piece.output_shape == (3, 3)
    assert [id(each) for each in piece.parameters] == [id(layer.weight), id(layer.bias)]
