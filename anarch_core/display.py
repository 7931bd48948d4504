"""How results look where Python shows them: as text where they are printed, as a small table in a notebook.

The HTML has no scripts, no colours and no style sheet of its own, so it takes those of the notebook, light or dark.
"""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.errors import MissingDependencyError, plain
from anarch_core.html import Html, element, join

if TYPE_CHECKING:
    from pandas import DataFrame

GAP = 2
"""Blanks between two columns of text."""

MOST_ROWS = 60
"""Rows of a table that are shown; what holds more has all of them as a data frame."""

LONGEST = 2000
"""Characters of a caption or a note."""

_LEFT, _RIGHT, _FAINT = "text-align: left", "text-align: right", "opacity: 0.7"


def columns_of_tables(widths: Sequence[int], width: int, names: int) -> list[list[int]]:
    """Columns as one table where they fit, else as several, by number; each has the first ones again.

    Args:
        widths: of the columns, with the blanks between two.
        width: that there is.
        names: columns that every table begins with.
    """
    first = list(range(names))
    tables = [first.copy()]
    for column in range(names, len(widths)):
        if len(tables[-1]) > names and sum(widths[index] for index in (*tables[-1], column)) > width:
            tables.append(first.copy())
        tables[-1].append(column)
    return tables


@attrs.frozen(kw_only=True)
class Table:
    """Rows of cells.

    Attributes:
        headings: of the columns.
        rows: cells, as many as there are headings.
        caption: what it shows, or how to read it; empty for none.
        texts: how many columns, from the left, are texts and flush left; the others are numbers.
        strong: rows that stand out, by number.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    texts: int = 1
    strong: Sequence[int] = ()

    def lines(self, width: int) -> Iterator[str]:
        """The table as text; one that is wider than ``width`` is told in several, which share its columns of text."""
        shown = [[plain(cell) for cell in row] for row in (self.headings, *self.rows[:MOST_ROWS])]
        widths = [max(len(row[column]) for row in shown) + GAP for column in range(len(self.headings))]
        for part, columns in enumerate(columns_of_tables(widths, width, self.texts)):
            if part:
                yield ""
            for row in shown:
                yield "".join(self._aligned(row[column], widths[column], column) for column in columns).rstrip()
        for text in filter(None, (self._rest, plain(self.caption, LONGEST))):
            yield from textwrap.wrap(text, width)

    def html(self) -> Html:
        """The table, in a box that scrolls sideways where there is little room."""
        head = (element("th", heading, style=self._side(column)) for column, heading in enumerate(self.headings))
        body = (self._row(row, index in self.strong) for index, row in enumerate(self.rows[:MOST_ROWS]))
        below = [element("div", text, style=_FAINT) for text in (self._rest, self.caption) if text]
        content = element("table", element("thead", element("tr", *head)), element("tbody", *body))
        return join([element("div", content, style="overflow-x: auto"), *below])

    @property
    def _rest(self) -> str:
        more = len(self.rows) - MOST_ROWS
        return f"and {more:,} more rows" if more > 0 else ""

    def _aligned(self, cell: str, width: int, column: int) -> str:
        return cell.ljust(width) if column < self.texts else f"{cell.rjust(width - GAP)}{' ' * GAP}"

    def _row(self, row: Sequence[str], strong: bool) -> Html:
        cells = (element("td", element("strong", cell) if strong and cell else cell, style=self._side(i)) for i, cell in enumerate(row))
        return element("tr", *cells)

    def _side(self, column: int) -> str:
        return _LEFT if column < self.texts else _RIGHT


@attrs.frozen(kw_only=True)
class Overview:
    """What is worth seeing at a glance.

    Attributes:
        title: what it is, in a line.
        facts: names and what they stand for.
        tables: below them.
        notes: sentences at the end.
    """

    title: str
    facts: Sequence[tuple[str, str]] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()

    def text(self, width: int) -> str:
        """As lines of at most ``width`` characters where the cells allow it."""
        widest = max((len(name) for name, _ in self.facts), default=0) + GAP
        lines = [plain(self.title), *(f"{name:<{widest}}{plain(text)}" for name, text in self.facts)]
        for table in self.tables:
            lines += ["", *table.lines(width)]
        for note in self.notes:
            lines += textwrap.wrap(plain(note, LONGEST), width)
        return "\n".join(lines)

    def html(self) -> Html:
        """For a notebook."""
        title = element("div", element("strong", self.title))
        facts = [element("div", element("span", f"{name}: ", style=_FAINT), text) for name, text in self.facts]
        notes = [element("div", text) for text in self.notes]
        return element("div", title, *facts, *(table.html() for table in self.tables), *notes)


class Displayed:
    """Shows an overview of itself where Python shows it."""

    __slots__ = ()

    def overview(self) -> Overview:
        """What is shown."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.overview().text(shutil.get_terminal_size().columns)

    def _repr_html_(self) -> str:
        return str(self.overview().html())


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str] = ()) -> DataFrame:
    """Rows as a data frame of pandas.

    Args:
        rows: values by column.
        columns: those that come first, and are there even where there are no rows.

    Raises:
        MissingDependencyError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        msg = "a data frame needs pandas, which is not installed: pip install pandas"
        raise MissingDependencyError(msg) from error
    found = list(rows)
    return pd.DataFrame(found, columns=list(dict.fromkeys([*columns, *(name for row in found for name in row)])))
