"""What a figure of a report is: the interface of figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import attrs

from anarch_core.report.evidence import FinishedRun, Series

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@attrs.frozen(kw_only=True)
class Table:
    """A table on the page; the first cell of a row is its heading, the others are numbers.

    Attributes:
        caption: what it shows.
        headings: of the columns.
        rows: cells, as many as there are headings.
        strong: rows that stand out, by number.
    """

    caption: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    strong: Sequence[int] = ()


class AbstractFigure(ABC):
    """A figure of finished runs, with what else it says on the page.

    It is built without arguments. Where a probe of the record's ``needs`` did not run, no method is called and the page says which
    one to run; so at least one of the runs has the results of every such probe, but not every run or branch need have them.

    Attributes:
        heading: of the section on the page that holds its tables.
    """

    heading: ClassVar[str] = "Tables"

    @abstractmethod
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Draw the runs: wide, for a page of text, or ``narrow``, with all panels below each other, for a phone.

        Raises:
            NothingToDrawError: the runs do not have what it shows; the message says what is missing and what to do.
        """

    @abstractmethod
    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What it shows, how to read it, and what is seen."""

    def findings(self, series: Series) -> Sequence[str]:
        """Sentences on one relaxation of one run, for the section *What it shows*."""
        return ()

    def tables(self, run: FinishedRun) -> Sequence[Table]:
        """Tables on one run."""
        return ()
