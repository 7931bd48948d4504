"""What an installation contains: the built-ins under their entry points, and no import package that was not meant."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import anarch_core
import anarch_plugins
from anarch_core.plugin.registry import Registry

ROOT = Path(__file__).parents[2]
ROOT_OF_PLUGINS = Path(anarch_plugins.__file__).parent
FOLDERS = [module.parent.relative_to(ROOT_OF_PLUGINS) for module in ROOT_OF_PLUGINS.glob("*/*/__init__.py")]
MODULES = {folder.name: ".".join(("anarch_plugins", *folder.parts)) for folder in FOLDERS}


def test_every_plugin_folder_has_its_entry_point_and_the_reverse() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["anarch.plugins"]
    assert declared == MODULES


def test_the_installed_entry_points_are_those_of_the_checkout() -> None:
    """Fails when a plugin was added since the last ``pip install``, also an editable one."""
    installed = {point.name for point in entry_points(group="anarch.plugins") if point.dist is not None and point.dist.name == "anarch"}
    assert installed == MODULES.keys()


@pytest.mark.parametrize("name", ["plugins", "tests", "docs", "examples"])
def test_folders_of_the_checkout_are_not_importable(name: str) -> None:
    ran = subprocess.run([sys.executable, "-I", "-c", f"import {name}"], capture_output=True, text=True, check=False)
    assert f"No module named '{name}'" in ran.stderr


@pytest.mark.parametrize("package", [anarch_core, anarch_plugins])
def test_packages_are_typed(package: object) -> None:
    assert (Path(package.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("package", [anarch_core, anarch_plugins])
def test_every_folder_with_modules_is_a_package(package: object) -> None:
    """Others are left out of wheels without a word."""
    folders = {file.parent for file in Path(package.__file__).parent.rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("package", [anarch_core, anarch_plugins])
def test_every_file_beside_the_modules_is_package_data(package: object) -> None:
    """As wheels take them: patterns are relative to the package that they stand under."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    root = Path(package.__file__).parent
    taken = set()
    for folder in {file.parent for file in root.rglob("__init__.py")}:
        name = ".".join(folder.relative_to(root.parent).parts)
        taken |= {file for pattern in (*patterns["*"], *patterns.get(name, ())) for file in folder.glob(pattern)}
    files = {file for file in root.rglob("*") if file.is_file() and file.suffix != ".py" and "__pycache__" not in file.parts}
    assert files - taken == set()


def test_every_built_in_loads_lightly_and_no_name_is_used_twice() -> None:
    registry = Registry.load(disabled=(), builtin_only=True, strict=True)
    assert all(plugin.components for plugin in registry.plugins if plugin.builtin)
    assert registry.clashes() == {}


def test_versions_agree() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == anarch_core.__version__
