"""The page about the architecture says what is so: its table is the contract, its arrows are imports, its files exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "anarch_core"
PAGE = (ROOT / "docs/architecture.md").read_text()


def contracted() -> list[set[str]]:
    """The layers of the contract, lowest first, without those that may be absent."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [{name.strip() for name in layer.split("|") if "(" not in name} for layer in reversed(layers)]


def tabled() -> list[set[str]]:
    """The layers of the page's table, lowest first."""
    rows = re.findall(r"^\| (\d+) \| `(\w+)(/?)` \|", PAGE, re.MULTILINE)
    assert [name for _, name, slash in rows if (CORE / name).is_dir() != bool(slash)] == []
    return [{name for number, name, _ in rows if number == layer} for layer in sorted({row[0] for row in rows}, key=int)]


def imported(module: str) -> set[str]:
    """What a module or package of the core takes from others, by the names right below `anarch_core`."""
    files = (CORE / module).rglob("*.py") if (CORE / module).is_dir() else [CORE / f"{module}.py"]
    names = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("anarch_core.")} - {module}


def drawn() -> dict[str, set[str]]:
    """The picture's arrows."""
    return {source: set(targets.split(" & ")) for source, targets in re.findall(r"^ +(\w+) --> (.*)$", PAGE, re.MULTILINE)}


def reached(arrows: dict[str, set[str]], start: str) -> set[str]:
    """Where arrows lead, one after the other."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = arrows.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def test_the_table_is_the_contract() -> None:
    assert tabled() == contracted()


def test_arrows_of_the_picture_are_imports_and_none_is_missing() -> None:
    arrows = drawn()
    shown = arrows.keys() | set().union(*arrows.values())
    imports = {module: imported(module) & shown for module in shown}
    assert {source: targets - imports[source] for source, targets in arrows.items() if targets - imports[source]} == {}
    assert {source: targets - reached(arrows, source) for source, targets in imports.items() if targets - reached(arrows, source)} == {}


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w./-]+(?:\.(?:py|toml|md)|/))`", PAGE))))
def test_files_and_folders_are_there(path: str) -> None:
    assert (ROOT / path).exists() or (CORE / path).exists()


@pytest.mark.parametrize(("path", "name"), re.findall(r"`(anarch_core/[\w/]+\.py)`: `(\w+)`", PAGE))
def test_what_is_looked_for_is_defined_where_the_page_says(path: str, name: str) -> None:
    defined = [node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert name in defined


def test_the_contracts_are_kept() -> None:
    pytest.importorskip("importlinter", reason="import-linter comes with the extra 'dev'")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
