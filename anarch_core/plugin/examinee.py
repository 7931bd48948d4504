"""The process in which a plugin is examined: imports it and what it names, and writes down what it finds.

A line of JSON at a time, and before each step what is about to happen: whatever becomes of the process, its last line says where.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import attrs

from anarch_core.errors import plain
from anarch_core.plugin.diagnosis import Problem, plugin_problems
from anarch_core.plugin.discovery import entry_points, load
from anarch_core.plugin.registry import Registry

SLOW = 1.0
"""Seconds that an import may take without a word."""

LARGEST = 1 << 24
"""Bytes of a file that the process writes."""


def report(name: str, distribution: str, path: str) -> None:
    """Examine the plugin of a name and a distribution, and write what is found to a file."""
    with open(path, "a", encoding="utf-8", buffering=1) as file:  # noqa: PTH123

        def say(**what: Any) -> None:
            file.write(json.dumps(what) + "\n")

        _small_files()
        point, known = next(pair for pair in entry_points() if (pair[1].name, pair[1].distribution) == (name, distribution))
        say(doing="it is imported")
        record = load(point, known)
        shown = [(info.kind, info.name, plain(info.summary)) for info in record.components]
        said = {key: getattr(record, key) for key in ("error", "traceback", "seconds", "imports_torch")}
        say(status=record.status.value, components=shown, **said)
        registry = Registry((record,))
        for problem in plugin_problems(registry, record, targets=True, before=lambda what: say(doing=what)):
            say(problems=[attrs.asdict(problem)])
        if record.seconds > SLOW:
            text = f"takes {record.seconds:.1f} s to import, which every command waits for"
            say(problems=[{"text": text, "advice": "import what is slow in the module that the components' targets name"}])
        for problem in _output_problems():
            say(problems=[attrs.asdict(problem)])
        say(doing="its process ends", done=True)


def _small_files() -> None:
    """What a plugin prints for ever ends somewhere."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    except (ImportError, OSError, ValueError):
        pass


def _output_problems() -> Iterator[Problem]:
    for number, name in ((1, "standard output"), (2, "standard error")):
        stream = (sys.stdout, sys.stderr)[number - 1]
        try:
            os.fstat(number)
            closed = bool(getattr(stream, "closed", False))
        except OSError:
            closed = True
        if closed:
            yield Problem(f"closes {name} when it is imported", "leave the streams of the process open: they are not the plugin's")
