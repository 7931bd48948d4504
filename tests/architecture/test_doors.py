"""What authors of plugins build on: the names of the doors, written down in `doors.toml`, and nothing else of the core."""

from __future__ import annotations

import ast
import importlib
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest

from anarch_core.plugin.registry import KINDS, Registry

ROOT = Path(__file__).parents[2]
DOORS: dict[str, list[str]] = tomllib.loads((ROOT / "tests/architecture/doors.toml").read_text())
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
OWN_PAGES = ("docs/architecture.md", "CHANGELOG.md")
"""They tell developers of anarch where things are, not authors what to import."""
EXAMPLE = {"name": "mine", "package": "anarch_mine", "Class": "Mine", "Kind": "Probe", "kind": "probe"}
"""What stands in templates for names."""

OTHER_MEANINGS = {
    ("testing/lift.py", "gradient"): "a role of optimizer state",
    ("testing/matrices.py", "gradient"): "a role of optimizer state",
    ("testing/objective.py", "gradient"): "what is wrong, in a message",
    ("testing/matrices.py", "shared"): "a part of a weight",
    ("checkpoint/schema.py", "delta"): "a kind of file: what changed since the parent",
    ("cli/inspect.py", "tensors"): "a key of what is printed",
    ("cli/interpolate.py", "positions"): "a key of what is printed",
    ("cli/project.py", "shared"): "a part of a weight",
    ("constraint/parts.py", "shared"): "a part of a weight",
    ("layers/constrained.py", "shared"): "a part of a weight",
    ("lattice/drift.py", "shared"): "a part of a weight",
    ("paths/__init__.py", "plane"): "the name of a function",
    ("probe/base.py", "tensors"): "what a measurement holds",
    ("probe/coordinates.py", "shared"): "a part of a weight",
    ("probe/neighbourhoods.py", "shared"): "a part of a weight",
    ("probe/layer_kernels.py", "shared"): "a part of a weight",
    ("relaxation/report.py", "shared"): "a part of a weight",
    ("plugin/records.py", "gradient"): "a role of an optimizer's state",
    ("relaxation/optimizer_state.py", "gradient"): "a role of an optimizer's state",
    ("machine.py", "numpy"): "a package whose version is noted",
    ("testing/component.py", "numpy"): "a package that is slow to import",
    ("testing/component.py", "torchvision"): "a package that is slow to import",
    ("report/figures/style.py", "log"): "matplotlib's word for a scale",
    ("report/figures/images.py", "interpolation"): "an argument of matplotlib's",
    ("similarity/__init__.py", "cka"): "the name of a function",
}
"""Words that the core says and that a built-in component is called by too, with what the core means."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def of_authors() -> Iterator[tuple[str, str]]:
    """Code that is written as an author of a plugin would: where it stands, and the text."""
    for path in sorted([*(ROOT / "plugins").rglob("*.py"), *(ROOT / "examples").rglob("*.py")]):
        yield relative(path), path.read_text()
    for path in sorted((ROOT / "anarch_core/scaffold/templates").rglob("*.py.template")):
        yield relative(path), Template(path.read_text()).substitute(EXAMPLE)
    for page in PAGES:
        for number, block in enumerate(re.findall(r"^ *```python\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE), start=1):
            yield f"{relative(page)}, block {number}", textwrap.dedent(block)


AUTHORS = dict(of_authors())


def past_the_doors(tree: ast.AST) -> list[str]:
    """What code takes from the core that no door gives."""
    taken: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            taken += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            taken += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "anarch_core":
            taken.append(("anarch_core", node.attr))
    found = []
    for module, name in taken:
        if module.partition(".")[0] != "anarch_core":
            continue
        of_door = module in DOORS and (name is None or name in DOORS[module])
        is_door = name is not None and f"{module}.{name}" in DOORS
        if not (of_door or is_door):
            found.append(module if name is None else f"{module}.{name}")
    return found


@pytest.mark.parametrize("door", DOORS)
def test_a_door_gives_the_names_that_are_written_down(door: str) -> None:
    names = importlib.import_module(door).__all__
    new, gone = sorted(set(names) - set(DOORS[door])), sorted(set(DOORS[door]) - set(names))
    assert new + gone == [], (
        f"the public interface changed: {door} has the new names {new} and lost {gone}. If that is meant, change "
        "tests/architecture/doors.toml too, raise API_VERSION in anarch_core/plugin/hookspecs.py (the minor number for a new name, "
        "the major one for a name that is gone or means something else), and tell authors in CHANGELOG.md"
    )


def test_the_reference_lists_the_doors() -> None:
    section = (ROOT / "docs/plugins.md").read_text().partition("\n## Doors\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(anarch_core[\w.]*)`", section)) == DOORS.keys()


@pytest.mark.parametrize("door", DOORS)
def test_every_name_of_a_door_is_there(door: str) -> None:
    module = importlib.import_module(door)
    assert [name for name in DOORS[door] if not hasattr(module, name)] == []


def test_every_package_that_calls_itself_a_door_is_one() -> None:
    claimed = {
        relative(path.parent).replace("/", ".")
        for path in (ROOT / "anarch_core").rglob("__init__.py")
        if re.search(r"\b[Aa] door\b|\bThe door\b", ast.get_docstring(ast.parse(path.read_text())) or "")
    }
    assert claimed - DOORS.keys() == set()


@pytest.mark.parametrize("place", AUTHORS)
def test_authors_enter_by_the_doors(place: str) -> None:
    assert past_the_doors(ast.parse(AUTHORS[place])) == [], (
        "import it from a door of tests/architecture/doors.toml, or make it public there"
    )


@pytest.mark.parametrize("place", [place for place in AUTHORS if not place.startswith("plugins/")])
def test_nobody_imports_from_inside_a_built_in_plugin(place: str) -> None:
    """What built-in plugins take from one another is a contract of imports."""
    assert re.findall(r"^\s*(?:from|import) anarch_plugins.*$", AUTHORS[place], re.MULTILINE) == []


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("from anarch_core.lattice import EFCN, Axis", []),
        ("from anarch_core import layers, relax", []),
        ("import anarch_core\nanarch_core.relax", []),
        ("from anarch_core.lattice.geometry import Axis", ["anarch_core.lattice.geometry.Axis"]),
        ("from anarch_core.network import network_bytes", ["anarch_core.network.network_bytes"]),
        ("def f():\n    import anarch_core.running.runner", ["anarch_core.running.runner"]),
        ("import anarch_core\nanarch_core.machine.cores()", ["anarch_core.machine"]),
    ],
)
def test_what_goes_past_the_doors_is_seen(code: str, found: list[str]) -> None:
    assert past_the_doors(ast.parse(code)) == found


@pytest.mark.parametrize("page", [page for page in PAGES if relative(page) not in OWN_PAGES], ids=relative)
def test_pages_name_what_doors_give(page: Path) -> None:
    """`anarch_core.a.b.Name` in running text is read as what to import."""
    unknown = []
    for dotted in re.findall(r"`(anarch_core(?:\.\w+)+)", page.read_text()):
        door = max((door for door in DOORS if dotted == door or dotted.startswith(f"{door}.")), key=len)
        name = dotted.removeprefix(door).removeprefix(".").partition(".")[0]
        if name and name not in DOORS[door]:
            unknown.append(dotted)
    assert unknown == []


def test_the_core_names_no_component_but_as_a_default() -> None:
    """What the core does for one component by name, no third party can have."""
    registry = Registry.load(disabled=(), builtin_only=True, strict=True)
    components = {name for kind in KINDS for name in registry.names(kind)}
    core = ROOT / "anarch_core"
    found = {
        (path.relative_to(core).as_posix(), text)
        for path in sorted(core.rglob("*.py"))
        for text in strings_but_defaults(ast.parse(path.read_text()))
        if text in components
    }
    assert found - OTHER_MEANINGS.keys() == set(), "ask the component's record or class, or say in OTHER_MEANINGS what else the word means"
    assert OTHER_MEANINGS.keys() - found == set(), "nothing says these any longer; take them out of OTHER_MEANINGS"


def strings_but_defaults(tree: ast.AST) -> Iterator[str]:
    """String constants, without the defaults of arguments, of fields and of click's options, and without class attributes."""
    defaults: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            defaults |= {id(default) for default in (*node.defaults, *node.kw_defaults)}
        elif isinstance(node, ast.keyword) and node.arg == "default":
            defaults.add(id(node.value))
        elif isinstance(node, ast.ClassDef):
            defaults |= {id(line.value) for line in node.body if isinstance(line, ast.AnnAssign)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in defaults:
            yield node.value
