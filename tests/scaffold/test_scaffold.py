"""``anarch plugins new``: what it writes installs, is found, runs and passes its tests; names that could not work are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner

from anarch_core.cli import main
from anarch_core.cli.plugins import command
from anarch_core.errors import ConfigError
from anarch_core.plugin.diagnosis import plugin_problems
from anarch_core.plugin.discovery import Status
from anarch_core.plugin.records import ComponentInfo
from anarch_core.plugin.registry import KINDS, Registry, get_registry
from anarch_core.scaffold import SCAFFOLDED, create

RUN = {
    "relaxation": ["--relax", "brand-new-relaxation"],
    "probe": ["--relax", "efcn", "--probe", "brand-new-probe"],
    "schedule": ["--relax", "efcn", "--switch", "brand-new-schedule:1"],
    "model": ["--relax", "efcn", "--model", "brand-new-model"],
    "dataset": ["--relax", "efcn", "--data", "brand-new-dataset"],
    "optimizer": ["--relax", "efcn", "--optimizer", "brand-new-optimizer", "--lr", "0.001"],
    "objective": ["--relax", "efcn", "--objective", "brand-new-objective:1"],
    "augmentation": ["--relax", "efcn", "--augment", "brand-new-augmentation:0.2"],
    "penalty": ["--relax", "efcn", "--penalty", "brand-new-penalty:0.01"],
    "observer": ["--relax", "efcn", "--observe", "brand-new-observer"],
    "workers": ["--relax", "efcn", "--workers", "brand-new-workers"],
    "figure": ["--relax", "efcn", "--probe", "delta"],
}


@attrs.frozen
class Installed:
    """What was written of every kind, by kind, and the environment in which all of it is installed."""

    roots: dict[str, Path]
    environment: dict[str, str]
    listed: list[dict[str, Any]]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Written and installed as any third party's, in a folder of its own."""
    folder = tmp_path_factory.mktemp("scaffold")
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}
    roots = {kind: create(f"brand-new-{kind}", kind, folder, registry=get_registry()) for kind in SCAFFOLDED}

    def python(*arguments: object) -> str:
        ran = subprocess.run(
            [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, env=environment, cwd=folder
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    options = ["--no-deps", "--no-build-isolation", "--no-index", "--target"]
    python("-m", "pip", "install", *options, folder / "site", *roots.values())
    return Installed(roots, environment, json.loads(python("-m", "anarch_core", "plugins", "list", "--json")))


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Forget the modules of one plugin before the next one of the same name."""
    yield
    for name in [name for name in sys.modules if name.startswith("anarch_brand_new")]:
        del sys.modules[name]


def test_every_kind_but_commands_has_a_template() -> None:
    assert set(SCAFFOLDED) == set(KINDS) - {"command"} == set(RUN)


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_what_is_written_is_a_plugin_without_problems(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = create("brand-new", kind, tmp_path, registry=get_registry())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    info = tmp_path / "anarch_brand_new-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((name, module),) = project["entry-points"]["anarch.plugins"].items()
    (info / "entry_points.txt").write_text(f"[anarch.plugins]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(root)
    registry = Registry.load()
    (plugin,) = [plugin for plugin in registry.plugins if plugin.distribution == "anarch-brand-new"]
    assert plugin.status is Status.LOADED
    assert plugin_problems(registry, plugin, targets=True) == []
    component: ComponentInfo = registry.find(kind, "brand-new")
    assert (component.options is None) == (kind == "figure")


@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_what_is_written_has_no_marks_left(kind: str, tmp_path: Path) -> None:
    root = create("brand-new", kind, tmp_path, registry=get_registry())
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {path.relative_to(root).as_posix() for path in files} == {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "anarch_brand_new/__init__.py",
        f"anarch_brand_new/{kind}.py",
        "tests/test_conformance.py",
        f"tests/test_{kind}.py",
        *([] if kind == "figure" else ["anarch_brand_new/options.py"]),
        *(["anarch_brand_new/job.py"] if kind == "workers" else []),
    }
    for path in files:
        assert "${" not in path.read_text()
        assert path.suffix != ".template"


@pytest.mark.slow
@pytest.mark.parametrize("kind", SCAFFOLDED)
def test_it_installs_runs_and_passes_its_tests(kind: str, installed: Installed, python: Any, signals: Path, tmp_path: Path) -> None:
    name, root = f"brand-new-{kind}", installed.roots[kind]
    (plugin,) = [plugin for plugin in installed.listed if plugin["distribution"] == f"anarch-{name}"]
    assert [(component["kind"], component["name"]) for component in plugin["components"]] == [(kind, name)]

    def well(ran: subprocess.CompletedProcess[str]) -> None:
        assert ran.returncode == 0, ran.stdout + ran.stderr

    place = {"environment": installed.environment, "folder": tmp_path}
    well(python.anarch("plugins", "doctor", name, **place))
    size = [
        "--data",
        f"tensors:{signals}",
        "--model",
        "cnn1d",
        "--epochs",
        "1",
        "--branch-epochs",
        "1",
        "--batch-size",
        "10",
        "--jobs",
        "1",
    ]
    switch = [] if kind == "schedule" else ["--switch", "at:0"]
    run = ["run", *size, *RUN[kind], *switch, "--train-limit", "40", "--out", tmp_path / "run"]
    well(python("-m", "anarch_core", *run, **place) if kind == "figure" else python.anarch(*run, **place))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["segments"]
    own = ["--rootdir", root, "-c", root / "pyproject.toml", root / "tests"]
    well(python("-m", "pytest", "-q", "-p", "no:cacheprovider", *own, **place))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Norms", "'Norms' is not a name; write lower-case letters"),
        ("low--rank", "is not a name"),
        ("norms-", "is not a name"),
        ("1d", "is not a name"),
        ("core", "the package anarch_core is anarch's own"),
        ("anarch-plugins", "the package anarch_plugins is anarch's own"),
        ("efcn", "the name 'efcn' is taken by a relaxation of anarch"),
        ("batch", "options of 'batch' would be called --batch-..., as --batch-size of 'anarch run' is"),
    ],
)
def test_names_that_could_not_work_are_refused(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        create(name, "probe", tmp_path, registry=get_registry())
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "anarch-norms").mkdir()
    with pytest.raises(SystemExit) as exit:
        main(["plugins", "new", "norms", "--kind", "probe", "--dir", str(tmp_path)])
    assert exit.value.code == 1
    assert capsys.readouterr().err == f"Error: '{tmp_path / 'anarch-norms'}' exists already; choose another name or --dir, or remove it\n"
    assert list((tmp_path / "anarch-norms").iterdir()) == []


def test_the_prefix_may_be_given_and_the_next_steps_are_told(tmp_path: Path) -> None:
    result = CliRunner().invoke(command, ["new", "anarch-norms", "--kind", "probe", "--dir", str(tmp_path)])
    assert result.exit_code == 0
    assert f"cd {tmp_path / 'anarch-norms'}\n  pip install -e '.[test]'\n  anarch plugins doctor norms\n  pytest\n" in result.output
