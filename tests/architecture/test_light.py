"""What the command line reaches before it is needed imports nothing that takes seconds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "numpy", "matplotlib")
IMPORT_ALL = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
    heavy = [name for name in json.loads(sys.argv[2]) if name in sys.modules]
    if heavy:
        sys.exit(f"{name} imports {', '.join(heavy)}")
"""


def braces(pattern: str) -> Iterator[str]:
    """Patterns without alternatives, of one with `{a,b}` and `{a,{b,c}}`."""
    inner = re.search(r"\{([^{}]*)\}", pattern)
    if inner is None:
        yield pattern
        return
    for choice in inner[1].split(","):
        yield from braces(pattern[: inner.start()] + choice + pattern[inner.end() :])


def matches(path: str, pattern: str) -> bool:
    """As ruff reads patterns: `**` stands for any number of folders, also for none."""
    plain = [choice.replace("**/", folders) for choice in braces(pattern) for folders in ("", "*/")]
    return any(fnmatch(path, choice) for choice in plain)


def light_modules() -> list[str]:
    """Every module that pyproject.toml does not let import torch at its top."""
    ignores = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    (light,) = [pattern.removeprefix("!") for pattern, rules in ignores.items() if "TID253" in rules and pattern.startswith("!")]
    heavy = [pattern for pattern, rules in ignores.items() if "TID253" in rules and not pattern.startswith("!")]
    paths = [file.relative_to(ROOT).as_posix() for folder in ("anarch_core", "plugins") for file in (ROOT / folder).rglob("*.py")]
    chosen = [path for path in paths if matches(path, light) and not any(matches(path, pattern) for pattern in heavy)]
    return sorted(path.removeprefix("plugins/").removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in chosen)


def test_patterns_are_read_as_they_are_meant() -> None:
    found = light_modules()
    assert {"anarch_core", "anarch_core.cli.run", "anarch_core.schedule", "anarch_plugins.relaxations.efcn"} <= set(found)
    assert {"anarch_core.training", "anarch_core.report.figures.style", "anarch_plugins.relaxations.efcn.relaxation"}.isdisjoint(found)


def test_light_modules_import_nothing_heavy() -> None:
    """All of them, in one fresh interpreter."""
    script = [sys.executable, "-c", IMPORT_ALL, json.dumps(light_modules()), json.dumps(HEAVY)]
    ran = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
