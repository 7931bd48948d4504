"""The README is true: its commands run, its Python prints what it says, its packaging commands are the ones the check calls."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from pathlib import Path

import pytest

from anarch_core import cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def commands(text: str = TEXT) -> list[str]:
    lines = [line.split("#")[0].strip() for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith("anarch ")]


@pytest.fixture
def anarch(capsys, tmp_path, monkeypatch, mnist1d, one_figure):
    """Runs a command line in an empty folder; it has to go well."""
    monkeypatch.chdir(tmp_path)

    def anarch(*arguments: str) -> str:
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        captured = capsys.readouterr()
        assert caught.value.code == 0, captured.err
        assert "Traceback" not in captured.err
        return captured.out + captured.err

    return anarch


def small(command: str) -> list[str]:
    """The command for three epochs, few training samples and a narrow network; times beyond them are moved."""
    times = itertools.count(1)
    command = re.sub(r"@\d+", lambda _: f"@{next(times)}", re.sub(r"at:[\d,]+", "at:1,3", command))
    size = ["--epochs", "3", "--branch-epochs", "1", "--train-limit", "50", "--cnn1d-channels", "4", "--jobs", "1"]
    return [*shlex.split(command)[1:], *size]


@pytest.mark.parametrize("command", commands())
def test_commands_run(command, anarch):
    """Where a network is trained, as written they would start; small, they run."""
    arguments = shlex.split(command)[1:]
    if arguments[0] != "run":
        anarch(*arguments)
        return
    anarch("plan", "--no-time", *arguments[1:])
    anarch(*small(command))
    (run,) = Path("runs").iterdir()
    assert (run / "results.json").exists()


@pytest.mark.parametrize("command", commands((ROOT / "docs" / "results" / "mnist1d.md").read_text()))
def test_commands_behind_the_published_results_run(command, anarch):
    """As written they would start; small, and for one seed, they run."""
    anarch("plan", "--no-time", *shlex.split(command)[2:])
    assert "failed" not in anarch(*small(command), "--seeds", "0", "--out", "run")


@pytest.mark.parametrize("command", commands((ROOT / "docs" / "results" / "constraints.md").read_text()))
def test_commands_behind_the_table_of_constraints_would_start(command, anarch):
    assert "fits" in anarch("plan", "--no-time", *shlex.split(command)[2:])


@pytest.mark.parametrize("command", commands((ROOT / "docs" / "results" / "landscape.md").read_text()))
def test_commands_behind_the_landscape_would_start(command, anarch):
    assert "fits" in anarch("plan", "--no-time", *shlex.split(command)[2:])


RELAXATIONS = commands((ROOT / "docs" / "relaxations.md").read_text().replace("$ anarch", "anarch"))


@pytest.mark.parametrize("command", [command for command in RELAXATIONS if "DIR" not in command])
def test_commands_of_the_page_on_relaxations_would_start(command, anarch):
    assert "fits" in anarch("plan", "--no-time", *shlex.split(command)[2:])


@pytest.mark.slow
@pytest.mark.skipif("ANARCH_DATA" not in os.environ, reason="needs CIFAR-10: ANARCH_DATA=DIR")
def test_the_papers_protocol_in_small_runs(anarch):
    """As written, but for one switch time and fewer channels, epochs and training samples."""
    (command,) = commands((ROOT / "docs" / "results" / "cifar10.md").read_text())
    arguments = shlex.split(command.replace("DIR", os.environ["ANARCH_DATA"]))[1:]
    size = ["--switch", "at:1", "--epochs", "1", "--branch-epochs", "1", "--train-limit", "100", "--jobs", "1", "--out", "run"]
    size += ["--vanilla-cnn-channels", "4"]
    assert "failed" not in anarch(*arguments, *size)


@pytest.mark.slow
def test_the_python_example_prints_what_it_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    said = re.findall(r"^print\(.*\)  # ([^:\n]*)", block, re.MULTILINE)
    assert said[1:] == ["shared 0.7, unshared 0.8"]
    assert capsys.readouterr().out.splitlines()[1:] == said[1:]
    assert names["relaxed"].report.exact
    assert (tmp_path / "relaxed.safetensors").exists()


def test_the_check_calls_the_readmes_test_command():
    check = (ROOT / ".ci" / "run").read_text()
    assert 'pip install -e ".[test]" && pytest' in TEXT
    assert re.search(r"^pytest", check, re.MULTILINE)
