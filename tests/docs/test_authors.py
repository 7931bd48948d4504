"""The pages for authors of plugins say what is true: the tutorial is followed, and what is named exists, and the other way round."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from anarch_core import errors, testing
from anarch_core.cli import COMMANDS, plugins
from anarch_core.cli.run import command as run_command
from anarch_core.plugin import hookspecs
from anarch_core.plugin.hooks import RECORDS
from anarch_core.plugin.registry import get_registry
from anarch_core.scaffold import SCAFFOLDED, create
from anarch_core.testing.component import ComponentConformance

ROOT = Path(__file__).parents[2]
PAGES = {page: (ROOT / "docs" / f"{page}.md").read_text() for page in ("plugins", "tutorial", "conformance", "troubleshooting")}
FILE = re.compile(r"^`([\w./]+)` — [^\n]*\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CLASSES = [getattr(testing, name) for name in testing.__all__]


def own(cls: type) -> list[type]:
    """The class, and the bases that its checks are divided among; not what all kinds share."""
    return [base for base in cls.__mro__ if base not in ComponentConformance.__mro__] or [ComponentConformance]


def checks(cls: type) -> dict[str, str]:
    """The checks a conformance class adds, with what they say of themselves."""
    found = {name: check for base in own(cls) for name, check in vars(base).items() if name.startswith("test_")}
    return {name: " ".join(inspect.getdoc(check).split()) for name, check in found.items()}


class Reader:
    """Someone who follows the tutorial in an empty folder."""

    def __init__(self, folder: Path, python: Any) -> None:
        self.folder = folder
        self.start = python
        self.environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder / "installed"), str(folder)]), "OMP_NUM_THREADS": "1"}

    def follow(self, section: str) -> list[str]:
        """Write the files of a section and install them; returns what it says will be printed."""
        text = PAGES["tutorial"].partition(f"\n## {section}")[2].partition("\n## ")[0]
        assert text, f"there is no section {section!r}"
        for name, content in FILE.findall(text):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.install()
        return re.findall(r"^```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)

    def install(self) -> None:
        """What ``pip install -e .`` does: write down the entry points."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        info = self.folder / "installed" / "anarch_asleep.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
        lines = [f"{name} = {module}" for name, module in project["entry-points"]["anarch.plugins"].items()]
        (info / "entry_points.txt").write_text("[anarch.plugins]\n" + "\n".join(lines) + "\n")

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.start(*arguments, environment=self.environment, folder=self.folder)

    def anarch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.start.anarch(*arguments, environment=self.environment, folder=self.folder)


@pytest.mark.slow
def test_the_tutorial_can_be_followed(tmp_path: Path, python: Any) -> None:
    reader = Reader(tmp_path, python)
    reader.follow("1. ")
    doctor = reader.anarch("plugins", "doctor", "asleep")
    assert doctor.returncode == 0, doctor.stdout
    choice = ["--relax", "efcn", "--probe", "asleep", "--switch", "at:0", "--out", "run"]
    size = ["--epochs", "1", "--branch-epochs", "1", "--train-limit", "100", "--jobs", "1"]
    ran = reader.anarch("run", *choice, *size)
    assert ran.returncode == 0, ran.stderr
    assert '"asleep"' in (tmp_path / "run" / "results.json").read_text()

    first = (tmp_path / "anarch_asleep.py").read_text()
    (shown,) = reader.follow("2. ")
    mended = (tmp_path / "anarch_asleep.py").read_text()
    (tmp_path / "anarch_asleep.py").write_text(first)
    failed = reader.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert shown.strip() in failed.stdout
    assert "1 failed" in failed.stdout
    (tmp_path / "anarch_asleep.py").write_text(mended)
    passed = reader.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert passed.returncode == 0, passed.stdout

    (tmp_path / "anarch_asleep.py").unlink()
    reader.follow("3. ")
    passed = reader.python("-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert passed.returncode == 0, passed.stdout
    help = reader.anarch("run", "--probe", "asleep", "--asleep-threshold", "0.001", "--help")
    assert "Options of probe asleep" in help.stdout, help.stderr


@pytest.mark.slow
def test_a_relaxation_of_any_layer_is_complete(tmp_path: Path, python: Any) -> None:
    reader = Reader(tmp_path, python)
    reader.follow("6. ")
    passed = reader.python("-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert passed.returncode == 0, passed.stdout
    choice = ["--model", "symmetric-mlp", "--relax", "asymmetric", "--probe", "delta", "--switch", "at:0", "--out", "run"]
    ran = reader.anarch("run", *choice, "--epochs", "1", "--branch-epochs", "1", "--train-limit", "100", "--jobs", "1")
    assert ran.returncode == 0, ran.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert '"unshared"' in json.dumps(results)


@pytest.mark.parametrize("cls", [ComponentConformance, *CLASSES])
def test_every_check_is_documented_as_it_documents_itself(cls: type) -> None:
    heading = "## Every component" if cls is ComponentConformance else f"`{cls.__name__}`\n"
    section = PAGES["conformance"].partition(heading)[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(test_\w+)` \| (.*) \|$", section, re.MULTILINE)) == checks(cls)
    settings = [name for base in own(cls) for name in vars(base).get("__annotations__", {}) if name not in ("kind", "arguments")]
    assert [name for name in settings if f"`{name}`" not in section] == []


def test_every_kind_has_a_conformance_class() -> None:
    assert {cls.kind for cls in CLASSES} == set(SCAFFOLDED)


def test_the_table_of_hooks_is_complete() -> None:
    documented = set(re.findall(r"^\| `(anarch_\w+)\(\)` \|", PAGES["plugins"], re.MULTILINE))
    specified = {name for name, value in vars(hookspecs).items() if hasattr(value, "anarch_spec")}
    assert documented == specified == set(RECORDS)


def test_the_table_of_errors_is_complete() -> None:
    documented = set(re.findall(r"^\| `(\w+(?:Error|Warning))` \|", PAGES["troubleshooting"], re.MULTILINE))
    assert documented == {
        name
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
    }


def test_messages_that_are_explained_exist() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "anarch_core").rglob("*.py"))
    symptoms = re.findall(r"^\| [^|`]*`([^`]+)` \|", PAGES["troubleshooting"].partition("## Errors")[0], re.MULTILINE)
    symptoms = [symptom for symptom in symptoms if not symptom.startswith("anarch ")]
    assert len(symptoms) > 5
    assert [symptom for symptom in symptoms if symptom not in source] == []


def test_checks_named_in_the_tutorial_exist() -> None:
    known = {name for cls in [ComponentConformance, *CLASSES] for name in checks(cls)}
    named = set(re.findall(r"`(test_\w+)`", PAGES["tutorial"]))
    assert named
    assert named <= known


@pytest.mark.parametrize("page", PAGES)
def test_dotted_names_exist(page: str) -> None:
    for name in sorted(set(re.findall(r"`(anarch_core(?:\.\w+)+)`", PAGES[page]))):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_flags_exist(page: str) -> None:
    flags = {flag for parameter in run_command.params for flag in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    examples = ("--asleep-", "--norms-")
    for line in re.findall(r"^\$ anarch (.*)$", PAGES[page], re.MULTILINE):
        name, *words = line.split()
        assert name in COMMANDS, line
        if name == "plugins":
            assert words[0] in plugins.command.commands, line
        elif name == "run":
            assert [word for word in words if word.startswith("--") and word not in flags and not word.startswith(examples)] == [], line


def test_kinds_are_listed() -> None:
    sentence = PAGES["tutorial"].partition("Kinds are ")[2].partition(".")[0]
    assert set(re.findall(r"`(\w+)`", sentence)) == set(SCAFFOLDED)


def test_links_between_pages_lead_somewhere() -> None:
    for text in PAGES.values():
        for target in re.findall(r"\]\((\w+\.md)\)", text):
            assert (ROOT / "docs" / target).is_file(), target


def test_methods_in_the_tutorial_are_those_of_the_scaffold(tmp_path: Path) -> None:
    root = create("gains-of-mine", "relaxation", tmp_path, registry=get_registry())
    source = (root / "anarch_gains_of_mine" / "relaxation.py").read_text()
    section = PAGES["tutorial"].partition("## 5. ")[2].partition("\n## ")[0]
    documented = set(re.findall(r"^\| `(\w+)\(", section, re.MULTILINE))
    written = set(re.findall(r"^    def ([a-z]\w*)\(", source, re.MULTILINE))
    assert documented == written
