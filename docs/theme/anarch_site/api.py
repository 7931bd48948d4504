"""The API reference: a page for each door, with every name that it gives, from the list that the tests compare with the code."""

from __future__ import annotations

import tomllib
from pathlib import Path

import griffe

from anarch_site.docstrings import House

INTRODUCTION = """\
# API

What you may import. `API_VERSION` covers the names on these pages; what they do not name may move in any release. The same packages, by
what one writes: [doors](../../plugins.md#doors).

| package | what it gives |
|---|---|
"""


def doors(root: Path) -> dict[str, list[str]]:
    """The public names by package."""
    found: dict[str, list[str]] = tomllib.loads((root / "tests/architecture/doors.toml").read_text(encoding="utf-8"))
    return found


def place(door: str) -> str:
    """The page of a door."""
    return f"reference/api/{door}.md"


def pages(root: Path) -> dict[str, str]:
    """Pages by place. A name that several doors give is explained on the page of the first, and the others lead there."""
    package = griffe.load("anarch_core", search_paths=[root], extensions=griffe.load_extensions(House))
    made, explained = {}, {}
    rows = []
    for door, names in doors(root).items():
        module = package[door.removeprefix("anarch_core").lstrip(".")] if "." in door else package
        text = (module.docstring.value if module.docstring else "").strip()
        rows.append(f"| [`{door}`]({door}.md) | {_summary(text)} |\n")
        parts = []
        table = ["| name | what it is |\n|---|---|\n"]
        for name in names:
            what = module[name]
            target = what.final_target if what.is_alias else what
            home = explained.setdefault(target.path, door)
            summary = _summary(target.docstring.value if target.docstring else "")
            table.append(f"| [`{name}`][{home}.{name}] | {summary} |\n")
            if home == door:
                parts.append(f"::: {door}.{name}\n\n")
        made[place(door)] = "".join([f"# {door}\n\n{text}\n\n", *table, "\n", *parts])
    return {"reference/api/index.md": INTRODUCTION + "".join(rows), **made}


def _summary(docstring: str) -> str:
    return docstring.partition("\n\n")[0].replace("\n", " ").replace("|", "\\|")
