"""The README is true: its commands run, its Python runs, its links lead somewhere, its packaging commands are the ones the check calls."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def commands(text: str = TEXT) -> list[str]:
    lines = [line.split("#")[0].strip() for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split("&&")]
    return [part for part in parts if part.startswith("anarch ")]


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_commands_run(command, tmp_path):
    """As written, but for fewer training samples where a network is trained."""
    arguments = shlex.split(command)[1:]
    if arguments[0] == "run":
        arguments += ["--train-limit", "100", "--jobs", "1"]
    result = subprocess.run([sys.executable, "-P", "-m", "anarch_core", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    if arguments[0] == "run":
        (run,) = (tmp_path / "runs").iterdir()
        assert (run / "results.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", commands((ROOT / "docs" / "results" / "mnist1d.md").read_text()))
def test_commands_behind_the_published_results_run(command, tmp_path):
    """As written, but for one seed, four epochs and fewer training samples; switch times beyond them are moved."""
    arguments = shlex.split(re.sub(r"at:[\d,]+", "at:3,4", command))[1:]
    arguments += ["--epochs", "4", "--branch-epochs", "2", "--seeds", "0", "--train-limit", "100", "--jobs", "1", "--out", "run"]
    result = subprocess.run([sys.executable, "-P", "-m", "anarch_core", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "failed" not in result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.skipif("ANARCH_DATA" not in os.environ, reason="needs CIFAR-10: ANARCH_DATA=DIR")
def test_the_papers_protocol_in_small_runs(tmp_path):
    """As written, but for one switch time and fewer epochs and training samples."""
    (command,) = commands((ROOT / "docs" / "results" / "cifar10.md").read_text())
    arguments = shlex.split(command.replace("DIR", os.environ["ANARCH_DATA"]))[1:]
    arguments += ["--switch", "at:1", "--epochs", "1", "--branch-epochs", "1", "--train-limit", "100", "--jobs", "1", "--out", "run"]
    result = subprocess.run([sys.executable, "-P", "-m", "anarch_core", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "failed" not in result.stdout + result.stderr


@pytest.mark.slow
def test_the_python_example_runs(tmp_path, monkeypatch):
    pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["relaxed"].report.exact
    assert (tmp_path / "relaxed.safetensors").exists()


def test_links_lead_to_files():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", TEXT) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_check_calls_the_readmes_test_command():
    check = (ROOT / ".ci" / "run").read_text()
    assert 'pip install -e ".[test]" && pytest' in TEXT
    assert re.search(r"^pytest", check, re.MULTILINE)
