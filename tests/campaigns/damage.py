"""Damage to the files of a run, finished or stopped, between two processes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import small_run
from campaign import Campaign, Try

from anarch_core.experiment.results import Results

Damage = Callable[[Path, random.Random], None]


def flip(path: Path, draw: random.Random) -> None:
    found, content = path.stat(), bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)
    if draw.random() < 0.5:  # as a disk does it
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def digit(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    digits = [index for index, byte in enumerate(content) if 48 <= byte <= 57] or [0]
    content[draw.choice(digits)] ^= 1
    path.write_bytes(content)


def cut(path: Path, draw: random.Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def lengthen(path: Path, draw: random.Random) -> None:
    with path.open("ab") as file:
        file.write(draw.randbytes(draw.randrange(1, 100)))


def random_bytes(path: Path, draw: random.Random) -> None:
    path.write_bytes(draw.randbytes(path.stat().st_size))


def folder(path: Path, draw: random.Random) -> None:
    path.unlink()
    path.mkdir()
    if draw.random() < 0.5:
        (path / "file").write_text("somebody's")


def pipe(path: Path, draw: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def link(path: Path, draw: random.Random) -> None:
    """A link to a copy elsewhere, to a device, to nothing or to itself."""
    elsewhere = next(folder for folder in path.parents if (folder / "run").exists()) / "elsewhere"
    shutil.copy2(path, elsewhere)
    path.unlink()
    path.symlink_to(draw.choice([elsewhere, elsewhere, Path("/dev/zero"), Path("nowhere"), path]))


def another(path: Path, draw: random.Random) -> None:
    """Another file of the run in its place."""
    run = next(folder for folder in path.parents if (folder / "segments").exists())
    others = [other for other in files(run) if other != path and other.suffix == path.suffix]
    shutil.copy2(draw.choice(others or [run / "config.toml"]), path)


DAMAGES: dict[str, Damage] = {
    "one bit flipped in": flip,
    "cut": cut,
    "missing": lambda path, draw: path.unlink(),
    "a digit changed in": digit,
    "empty": lambda path, draw: path.write_bytes(b""),
    "a folder for": folder,
    "a pipe for": pipe,
    "a link for": link,
    "another file for": another,
    "longer": lengthen,
    "random bytes for": random_bytes,
}
STOPS = (None, 1, 3)
"""Finished; stopped in the trunk; stopped in the branch."""


def files(run: Path) -> list[Path]:
    """What a campaign damages, in an order that is the same each time."""
    return [path for path in sorted(run.glob("segments/**/*")) if path.name != ".lock" and not path.is_dir()]


def tries(draw: random.Random) -> Iterator[Try]:
    first = [("a digit changed in", "result.json"), ("cut", "final.safetensors"), ("one bit flipped in", "4.safetensors")]
    while True:
        if first:
            damage, name = first.pop(0)
            stop, which = None, name
        else:
            damage, stop, which = draw.choice(list(DAMAGES)), draw.choice(STOPS), None
        yield Try(f"{damage} {which or 'a file'}, stopped: {stop}", attempt(damage, stop, which, draw.randrange(2**32)))


def attempt(damage: str, stop: int | None, name: str | None, seed: int) -> Callable[[Path], None]:
    def held(place: Path) -> None:
        draw = random.Random(seed)
        run = small_run.copied(small_run.kept(stop), place)
        path = draw.choice([path for path in files(run) if name in (None, path.name)])
        where = path.relative_to(run)
        before = path.read_bytes()
        DAMAGES[damage](path, draw)
        same = path.is_file() and not path.is_symlink() and path.read_bytes() == before
        elsewhere = (place / "elsewhere").read_bytes() if (place / "elsewhere").exists() else None
        said = small_run.resumed(run)
        expected = small_run.kept()
        wrong = [name for name, content in small_run.left(expected).items() if small_run.left(run).get(name) != content]
        assert not wrong, f"{where}: {wrong} differ"
        assert sorted(small_run.left(run)) == sorted(small_run.left(expected)), where
        harmless = path.name == "history.jsonl" and damage == "longer" and stop is not None  # what a killed process leaves
        assert said or harmless or same, f"{where}: nothing was said"
        assert elsewhere is None or (place / "elsewhere").read_bytes() == elsewhere, f"{where} was written through"
        finals = [segment.final for segment in Results.read(run).segments]
        assert finals == [segment.final for segment in Results.read(expected).segments]
        assert not small_run.resumed(run), f"{where}: still damaged"

    return held


CAMPAIGN = Campaign(
    promise="a damaged run, resumed, says so and ends in the bytes of one that was left alone",
    tries=tries,
    count=200,
    in_suite=3,
)
