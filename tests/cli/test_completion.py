"""Tab: what a shell is offered, asked as click's scripts for bash, zsh and fish ask."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from anarch_core import cli
from anarch_core.config.files import recipe_names
from anarch_core.plugin.registry import get_registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def offers(monkeypatch, capsys):
    """The values that are offered for a line whose last word is not finished."""

    def offers(line: str, shell: str = "bash") -> list[str]:
        words = ["anarch", *shlex.split(line)]
        if line.endswith(" "):
            words.append("")
        monkeypatch.setenv("_ANARCH_COMPLETE", f"{shell}_complete")
        # fish gives the line as it is, without a word that has not been begun.
        monkeypatch.setenv("COMP_WORDS", f"anarch {line}" if shell == "fish" else shlex.join(words))
        monkeypatch.setenv("COMP_CWORD", words[-1] if shell == "fish" else str(len(words) - 1))
        with pytest.raises(SystemExit) as caught:
            cli.main([])
        captured = capsys.readouterr()
        assert (caught.value.code, captured.err) == (0, "")
        lines = captured.out.strip().splitlines()
        if shell == "zsh":
            assert set(lines[::3]) == {"plain"}
            return lines[1::3]
        return [line.split("\t")[0].removeprefix("plain,") for line in lines]

    return offers


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_names_of_components_are_offered_in_every_shell(offers, shell):
    assert offers("run --relax ", shell) == get_registry().names("relaxation")
    assert "efcn" in offers("run --relax e", shell)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("pl", ["plan", "plugins"]),
        ("run --data mn", ["mnist", "mnist1d"]),
        ("run --model vanilla", ["vanilla-cnn"]),
        ("plan --optimizer sg", ["sgd"]),
        ("run --switch lo", ["log"]),
        ("run --recipe paper", [name for name in recipe_names() if name.startswith("paper")]),
        ("run --precision fl", ["float32", "float64"]),
        ("run --workers lo", ["local"]),
        ("resume some --workers lo", ["local"]),
        ("resume some --workers slurm --slurm-part", ["--slurm-partition"]),
        ("run --optimizer-state ", ["carry", "reset"]),
        ("run --control ", ["continued", "scratch"]),
        ("run --relax tiled --tiled-pe", ["--tiled-period"]),
        ("run --probe hessian,d", ["hessian,delta"]),
        ("run --relax efcn,lcn,s", ["efcn,lcn,shared"]),
        ("relax some.safetensors --to ef", ["efcn"]),
        ("probe some.safetensors --probe gra", ["gradient"]),
        ("probe some.safetensors --data mnist1", ["mnist1d"]),
        ("interpolate a b --method log", ["logits"]),
        ("plugins doctor hess", ["hessian"]),
        ("run --epochs ", []),
    ],
)
def test_what_may_stand_there_is_offered(offers, line, expected):
    assert sorted(offers(line)) == sorted(expected)


def test_folders_and_files_are_the_shell_s(offers):
    assert offers("run --out ") == ["dir,"]
    assert offers("run --config set") == ["file,set"]


def test_checkpoints_are_offered_wherever_they_lie(offers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a/segments/trunk/final.safetensors", "runs/a/results.json", "mine.safetensors", ".hidden/other.safetensors"):
        file = Path(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    trunk = "runs/a/segments/trunk/final.safetensors"
    assert offers("inspect ") == ["mine.safetensors", trunk]
    assert offers("inspect ./ru") == [f"./{trunk}"]
    assert offers("probe runs/a/") == [trunk]
    assert offers("interpolate mine.safetensors ru") == [trunk]
    assert offers("relax nothing/") == ["file,nothing/"]


def test_runs_are_offered_by_their_folder(offers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/a", "runs/b", "elsewhere"):
        Path(name).mkdir(parents=True)
    for name in ("runs/a", "runs/b"):
        Path(name, "config.toml").touch()
    assert offers("report ") == ["runs/a", "runs/b"]
    assert offers("resume runs/b") == ["runs/b"]
    assert offers("resume else") == ["dir,else"]


def test_a_folder_of_everything_is_not_searched_for_ever(offers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.completion, "MOST_ENTRIES", 5)
    for index in range(9):
        Path(f"{index}.safetensors").touch()
    assert len(offers("inspect ")) == 5


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_line_that_the_documentation_gives_makes_bash_complete():
    (line,) = re.findall(r"^\| bash \| `(.*?)` \|", (ROOT / "docs" / "command_line.md").read_text(), re.MULTILINE)
    script = f"""
        PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH
        {line}
        COMP_WORDS=(anarch run --relax ef) COMP_CWORD=3
        $(complete -p anarch | sed 's/.*-F //; s/ .*//') anarch
        echo "${{COMPREPLY[@]}}"
    """
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert ran.stdout == "efcn\n", ran.stderr
