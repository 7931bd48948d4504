"""What a command shows in columns: never cut, whatever the width of the terminal."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from anarch_core.display import GAP, columns_of_tables
from anarch_core.errors import plain

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

FILE_WIDTH = 160
"""Columns where the output is no terminal, and there is no width to fit."""


def console() -> Console:
    """Standard output, as wide as the terminal, or as :data:`FILE_WIDTH` where it is none."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)


def print_facts(console: Console, facts: Sequence[tuple[str, str]]) -> None:
    """Labels and what they say: on a terminal broken at its edge and indented, elsewhere one line each."""
    from rich.table import Table
    from rich.text import Text

    width = max(len(label) for label, _ in facts) + GAP
    if not console.is_terminal:
        for label, text in facts:
            console.print(f"{label:<{width}}{text}", markup=False, soft_wrap=True)
        return
    grid = Table.grid(padding=0)
    grid.add_column(width=width)
    grid.add_column(overflow="fold")
    for label, text in facts:
        grid.add_row(Text(label), Text(text))
    console.print(grid)


@attrs.frozen
class NumberTable:
    """Lines of numbers for ``rich``: one table where it fits, else several that share the first column. Headings break at blanks.

    Attributes:
        headings: of the columns.
        lines: cells; a line has one for each heading.
        texts: how many columns, from the left, are words rather than numbers.
    """

    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    texts: int = 1

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | str]:
        """Lay the columns out in the width there is."""
        for index, columns in enumerate(self.split(options.max_width)):
            if index:
                yield ""
            yield self._part(columns)

    def split(self, width: int) -> list[list[int]]:
        """Indices of the columns of each table."""
        return columns_of_tables([self._width(index) + GAP for index in range(len(self.headings))], width + GAP, names=1)

    def _width(self, index: int) -> int:
        return max(len(text) for text in (*self.headings[index].split(), *(line[index] for line in self.lines)))

    def _part(self, columns: Sequence[int]) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        for index in columns:
            width = self._width(index)
            table.add_column(
                Text(textwrap.fill(self.headings[index], width)),
                justify="left" if index < self.texts else "right",
                vertical="bottom",
                # Only a name gives way, where it is longer than the line.
                no_wrap=index > 0,
                overflow="fold",
            )
        for line in self.lines:
            table.add_row(*(Text(plain(line[index])) for index in columns))
        return table
