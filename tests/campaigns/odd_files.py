"""What may stand where the files of a run stood: other content, other kinds of files, links to elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import shutil
import socket
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest import mock

import small_run
import tomli_w
from campaign import Campaign, Try
from command import here

import anarch_core
from anarch_core.errors import AnarchError
from anarch_core.report import catalogue

Change = Callable[[Path, random.Random], None]
FILES = ("run.json", "results.json", "config.toml", "result.json")
TEXTS = {
    "null": "null",
    "a list": "[]",
    "a number": "3",
    "a text": '"text"',
    "an empty table": "{}",
    "a schema alone": '{"schema": "1.0"}',
    "lists 1000 deep": "[" * 1000 + "]" * 1000,
    "lists 900 deep": '{"schema": "1.0", "data_sha256": ' + "[" * 900 + "]" * 900 + "}",
    "lists 100000 deep": "[" * 100_000 + "]" * 100_000,
    "tables 100000 deep": '{"a": ' * 100_000 + "1" + "}" * 100_000,
    "a TOML list 100000 deep": "[run]\nseeds = " + "[" * 100_000 + "]" * 100_000,
    "a TOML key 5000 deep": ".".join("a" * 5000) + " = 1\n",
    "not a number": '{"schema": "1.0", "seconds": NaN}',
    "an integer of 5000 digits": '{"schema": ' + "9" * 5000 + "}",
    "a number as [run]": "run = 3\n",
    "nothing": "",
    "zeros": "\0" * 1000,
    "half a character": '{"schema": "\\ud800"}',
    "a long text": '{"schema": "' + "long " * 100_000 + '"}',
}
ODD: tuple[Any, ...] = (
    None,
    [],
    {},
    3,
    -1,
    0.5,
    "text",
    "",
    True,
    [[]],
    [None],
    {"a": {}},
    "9" * 3000,
    10**30,
    1e308,
    "\ud800",
    "../../..",
)


def text(content: str) -> Change:
    return lambda path, draw: path.write_bytes(content.encode("utf-8", "surrogatepass"))


def other_values(path: Path, draw: random.Random) -> None:
    """A value or two of other types, the rest as it was, and no digest that would show it."""
    toml = path.suffix == ".toml"
    table = (tomllib if toml else json).loads(path.read_text())
    table.pop("digest", None)
    table.pop("left", None)
    if "schema" in table:
        table["schema"] = "1.0"
    for _ in range(draw.choice((1, 1, 2))):
        place = table
        while True:
            key = draw.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or draw.random() < 0.3:
                break
            place = place[key]
        place[key] = draw.choice([odd for odd in ODD if not toml or (odd is not None and odd != [None] and odd != "\ud800")])
    path.write_text(tomli_w.dumps(table) if toml else json.dumps(table))


def missing_key(path: Path, draw: random.Random) -> None:
    toml = path.suffix == ".toml"
    table = (tomllib if toml else json).loads(path.read_text())
    table.pop("digest", None)
    del table[draw.choice(list(table))]
    path.write_text(tomli_w.dumps(table) if toml else json.dumps(table))


def instead(make: Callable[[Path], object]) -> Change:
    def change(path: Path, draw: random.Random) -> None:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        make(path)

    return change


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**30)


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        short = Path(f"/proc/self/fd/{os.open(path.parent, os.O_RDONLY)}") / path.name  # its address is limited to 107 characters
        listening.bind(str(short))


KINDS: dict[str, Change] = {
    "a folder": instead(lambda path: (path / "deep").mkdir(parents=True)),
    "a pipe": instead(os.mkfifo),
    "a socket": instead(bound),
    "a link to /dev/zero": instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": instead(lambda path: path.symlink_to(path)),
    "a link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "a GB of zeros": instead(sparse),
    "bytes that are no text": lambda path, draw: path.write_bytes(b'{"schema": "\xff\xfe"}'),
    "UTF-16": lambda path, draw: path.write_bytes(path.read_text().encode("utf-16")),
    **{name: text(content) for name, content in TEXTS.items()},
    "other values": other_values,
    "a key less": missing_key,
}
LINKED = (
    ".lock",
    "segments",
    "segments/{}",
    "segments/{}/.lock",
    "segments/{}/history.jsonl",
    "segments/{}/snapshots",
    "segments/{}/probes",
)
LINKED += ("segments/{}/segment.json", "segments/{}/result.json", "config.toml", "results.json", "run.json")


def tries(draw: random.Random) -> Iterator[Try]:
    for name in ("null", "lists 100000 deep", "a pipe", "other values"):
        for file in FILES:
            yield Try(f"{name} for {file}", odd(file, KINDS[name], draw.randrange(2**32)))
    for place in LINKED:
        for stop in (1, 3):
            yield Try(f"a link for {place}, stopped: {stop}", linked(place, stop))
    for name, change in KINDS.items():
        for file in FILES:
            yield Try(f"{name} for {file}", odd(file, change, draw.randrange(2**32)))
    while True:
        file, name = draw.choice(FILES), draw.choice(("other values", "other values", "a key less"))
        yield Try(f"{name} for {file}", odd(file, KINDS[name], draw.randrange(2**32)))


def odd(file: str, change: Change, seed: int) -> Callable[[Path], None]:
    """Everything that reads a run has a line for it, and does not believe it."""

    def held(place: Path) -> None:
        kept = small_run.kept()
        with little_memory():
            look(kept, place)

    def look(kept: Path, place: Path) -> None:
        run = small_run.copied(kept, place)
        found = sorted(run.glob(f"**/{file}"))
        change(random.Random(seed).choice(found), random.Random(seed))
        with one_figure():
            here("report", run, folder=place).told()
            with contextlib.suppress(AnarchError):
                told = anarch_core.Results.read(run)
                if file != "results.json":
                    assert told.segments == anarch_core.Results.read(kept).segments
            door = ("resume", run) if seed % 2 else ("run", "--config", kept / "config.toml", "--out", run)
            ended = here(*door, folder=place).told()
        if file in ("result.json", "results.json"):
            assert ended.code == 0 or "move it elsewhere" in ended.err, ended.err
        if ended.code == 0 and file != "config.toml":
            assert small_run.left(run) == small_run.left(kept)

    return held


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    """At most 2 GiB more than now, so that what reads without end breaks its promise and not the machine."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    found = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2 * 2**30, found[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, found)


def one_figure() -> AbstractContextManager[object]:
    """Drawing all of them takes longer than the run."""
    return mock.patch("anarch_core.report.writer.figures", return_value=catalogue.figures()[:1])


def linked(place: str, stop: int) -> Callable[[Path], None]:
    """Nothing is written where a link in a run directory leads."""

    def held(folder: Path) -> None:
        run = small_run.copied(small_run.kept(stop), folder)
        trunk = json.loads((small_run.kept() / "results.json").read_text())["segments"][0]["id"]
        path, elsewhere = run / place.format(trunk), folder / "elsewhere"
        if not path.exists():
            path.touch()
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        before = tree(elsewhere)
        with one_figure():
            ended = here("resume", run, folder=folder).told()
        assert tree(elsewhere) == before, "something was written there"
        if ended.code == 0:
            assert small_run.left(run) == small_run.left(small_run.kept())
        else:
            ended.refused(str(path))

    return held


def tree(path: Path) -> dict[str, bytes]:
    """All that is in a file or folder."""
    return {str(file): file.read_bytes() for file in [path, *sorted(path.glob("**/*"))] if file.is_file()}


CAMPAIGN = Campaign(
    promise="whatever stands where a file of a run stood, one line says what is wrong, or the run is as it should be",
    tries=tries,
    count=240,
    in_suite=4,
    limit=30.0,
)
