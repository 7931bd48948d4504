"""The help of every command, as the command line writes it."""

from __future__ import annotations

from collections.abc import Iterator

import click

from anarch_core.cli import COMMANDS, group

WIDTH = 90
INTRODUCTION = """\
# Commands

What `anarch COMMAND --help` writes. Options of components are shown where one is chosen: `anarch run --relax tiled --help`.

"""


def page() -> str:
    """The page."""
    parts = [INTRODUCTION]
    with click.Context(group, info_name="anarch", max_content_width=WIDTH, terminal_width=WIDTH) as context:
        for level, name, text in _helps(group, context, list(COMMANDS)):
            parts.append(f"{'#' * level} {name}\n\n```text\n{text}\n```\n\n")
    return "".join(parts)


def _helps(command: click.Group, context: click.Context, names: list[str]) -> Iterator[tuple[int, str, str]]:
    for name in names:
        child = command.get_command(context, name)
        if child is None:
            continue
        with click.Context(child, parent=context, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH) as inner:
            yield context.command_path.count(" ") + 2, inner.command_path, child.get_help(inner)
            if isinstance(child, click.Group):
                yield from _helps(child, inner, child.list_commands(inner))
