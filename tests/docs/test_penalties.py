"""``docs/penalties.md`` says what is true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from click.testing import CliRunner

import anarch_core
from anarch_core.cli.plan import command as plan
from anarch_core.layers import relaxed_layers
from anarch_core.plugin import get_registry
from anarch_core.training import Progress

TEXT = (Path(__file__).parents[2] / "docs" / "penalties.md").read_text()
LOOP, OWN = re.findall(r"^```python\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def run(block: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(block, "docs/penalties.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def loop() -> dict[str, Any]:
    return run(LOOP)


@pytest.mark.usefixtures("mnist1d")
@pytest.mark.parametrize("command", re.findall(r"^anarch run (.*)$", TEXT, re.MULTILINE))
def test_the_commands_would_run(command: str) -> None:
    result = CliRunner().invoke(plan, [*shlex.split(command), "--no-time", "--train-limit", "200", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "would not start" not in result.output


def test_the_loop_draws_the_network_to_the_convolutions(loop: dict[str, Any]) -> None:
    total = anarch_core.drift(loop["model"]).total
    assert 0 < (total.unshared / total.total) ** 0.5 < 0.05
    with torch.no_grad():
        torch.testing.assert_close(loop["tightened"](loop["x"]), loop["model"](loop["x"]), atol=0.5, rtol=0.1)


def test_the_penalty_of_one_s_own_has_the_gradients_of_its_value(loop: dict[str, Any]) -> None:
    penalty, layers = run(OWN)["Group"](SimpleNamespace(weight=0.5)), relaxed_layers(loop["model"].double())
    progress = Progress(iteration=5, iterations=11)
    (term,) = penalty.terms(layers, progress)
    layer, way = layers["0"], torch.randn_like(layers["0"].weight)
    with torch.no_grad():
        layer.weight.add_(way, alpha=1e-9)
        (moved,) = penalty.terms(layers, progress)
    slope = float((term.gradients["weight"] * way).sum())
    assert float(moved.value - term.value) / 1e-9 == pytest.approx(slope, rel=1e-2)


def test_the_options_are_those_that_there_are() -> None:
    for name, listed in re.findall(r"^\| `(parts|bound):[\d.]+` \| .* \| (.*) \|$", TEXT, re.MULTILINE):
        options = get_registry().find("penalty", name).options
        assert re.findall(r"`(\w+)`", listed) == [field.name for field in attrs.fields(options)]
