"""``docs/configuration.md`` says what is true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from anarch_core.cli.plan import command as plan
from anarch_core.config.files import SETTINGS, recipe_names
from anarch_core.config.resolution import resolve

TEXT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()


def row(name: str) -> str:
    """What the table of settings has to say of one."""
    default = SETTINGS[name].default
    if isinstance(default, tuple):
        default = ",".join(map(str, default))
    written = f"{default:g}" if isinstance(default, float) else default if isinstance(default, (str, int)) else ""
    return f"| `{name}` | {f'`{written}`' if written != '' else ''} | {SETTINGS[name].metadata['help']} |"


def test_the_table_of_settings():
    start = TEXT.index("| setting | default | what it is |")
    assert TEXT[start : TEXT.index("\n\n", start)].splitlines()[2:] == [row(name) for name in SETTINGS]


@pytest.mark.parametrize("block", re.findall(r"^```toml\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE))
def test_the_examples_resolve(tmp_path, block):
    file = tmp_path / "example.toml"
    file.write_text(block)
    resolve({}, [file])


def test_every_recipe_is_listed():
    assert re.findall(r"^\| `([\w-]+)` \| [^|]*\|$", TEXT, re.MULTILINE)[-len(recipe_names()) :] == recipe_names()


@pytest.mark.usefixtures("mnist1d")
@pytest.mark.parametrize("command", re.findall(r"^anarch run (.*)$", TEXT, re.MULTILINE))
def test_the_commands_would_run(command):
    result = CliRunner().invoke(plan, [*shlex.split(command), "--no-time", "--train-limit", "200", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert "would not start" not in result.output
