"""What a shell may offer where a value is to be typed: quickly, silently, and never an error, since nobody has run anything yet."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from anarch_core.errors import AnarchError, plain
from anarch_core.plugin.registry import get_registry

Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

MOST_ENTRIES = 5000
"""Entries of folders that are looked at for checkpoints and runs."""


def completing() -> bool:
    """Whether this process was started by a shell that wants to complete a line."""
    return "_ANARCH_COMPLETE" in os.environ


def offered(choices: Iterable[str] | Mapping[str, str], incomplete: str, *, several: bool = False) -> list[CompletionItem]:
    """The choices that ``incomplete`` may become.

    Args:
        choices: values, or what they are by value.
        incomplete: what has been typed.
        several: whether a value is a comma list, whose last item is completed by what the others do not have yet.
    """
    before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
    said = choices if isinstance(choices, Mapping) else dict.fromkeys(choices)
    free = [name for name in said if name.startswith(last) and name not in before.split(",")]
    return [CompletionItem(before + comma + name, help=said[name]) for name in free]


def component_items(kind: str, incomplete: str, *, several: bool = False) -> list[CompletionItem]:
    """The components of a kind, each with its summary."""
    try:
        infos = get_registry().infos(kind)
    except AnarchError:
        return []
    return offered({info.name: plain(info.summary) for info in infos}, incomplete, several=several)


def offer_components(kind: str, *, several: bool = False) -> Offer:
    """Complete by the components of a kind."""
    return lambda _, __, incomplete: component_items(kind, incomplete, several=several)


def offer_plugins(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete by the installed plugins, whatever became of them."""
    try:
        return offered({plugin.name: plugin.owner for plugin in get_registry().plugins}, incomplete)
    except AnarchError:
        return []


def offer_checkpoints(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete by the checkpoints below what has been typed; where there are none, by files."""
    return _paths(incomplete, lambda path: path.suffix == ".safetensors", otherwise="file")


def offer_runs(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete by the run directories below what has been typed; where there are none, by folders."""
    return _paths(incomplete, lambda path: (path / "config.toml").is_file(), otherwise="dir")


def _paths(incomplete: str, wanted: Callable[[Path], bool], *, otherwise: str) -> list[CompletionItem]:
    name = os.path.basename(incomplete)  # noqa: PTH119  # a path does not tell "runs" from "runs/", nor "x" from "./x"
    typed = incomplete.removesuffix(name)
    found = sorted(f"{typed}{path}" for path in _below(Path(typed), name) if wanted(Path(typed, path)))
    return [CompletionItem(path) for path in found] or [CompletionItem(incomplete, type=otherwise)]


def _below(folder: Path, start: str) -> Iterator[Path]:
    """What lies in a folder under entries whose name starts so, nearest first, as paths from there; hidden ones are left out."""
    queue, left = [Path()], MOST_ENTRIES
    for inner in queue:
        try:
            entries = sorted(os.scandir(folder / inner), key=lambda entry: entry.name)[:left]
        except OSError:
            continue
        left -= len(entries)
        for entry in entries:
            if entry.name.startswith(".") or (inner == Path() and not entry.name.startswith(start)):
                continue
            yield inner / entry.name
            if entry.is_dir(follow_symlinks=False):
                queue.append(inner / entry.name)
