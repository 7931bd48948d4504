"""The table that sums a run up."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.display import GAP, columns_of_tables
from anarch_core.errors import plain
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.summary_rows import NOTHING, Pending, Place, Row, rows, spread
from anarch_core.objective import Metric

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table
    from rich.text import Text


@attrs.frozen(kw_only=True)
class Summary:
    """The summary as text, for a terminal or a page.

    Attributes:
        caption: how to read it.
        headings: of the columns: that of the network's name, an empty one over the mark of the best branch, all others over numbers.
        lines: cells.
        best: index of the line with the best test score of a branch; empty where there is no branch.
        places: which segments each line is of.
        pending: indices of the lines that are not complete, in a run that goes on.
    """

    caption: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    best: Sequence[int]
    places: Sequence[Place]
    pending: Sequence[int] = ()

    def only(self, kept: Sequence[int]) -> Summary:
        """Some of its lines, by number, ascending."""
        best, pending = ([new for new, old in enumerate(kept) if old in marked] for marked in (self.best, self.pending))
        places = [self.places[index] for index in kept]
        return attrs.evolve(self, lines=[self.lines[index] for index in kept], places=places, best=best, pending=pending)


def summary(
    segments: Iterable[SegmentResult], headlines: Mapping[str, Sequence[str]], metric: Metric, pending: Mapping[Place, Pending] = NOTHING
) -> Summary:
    """Segments as lines of text; see :func:`rows`. What is missing of a line stands beside its numbers, where the best one has its mark.

    A scalar that was also measured in coordinates that compare between networks is shown in these: ``norm_shared`` for ``norm``.
    """
    segments = list(segments)
    measured = {
        (probe, scalar)
        for segment in segments
        for probe, moments in segment.probes.items()
        for found in moments.values()
        for scalar in found
    }
    headlines = {
        probe: [f"{scalar}_shared" if (probe, f"{scalar}_shared") in measured else scalar for scalar in scalars]
        for probe, scalars in headlines.items()
    }
    lines = rows(segments, headlines, metric, pending)
    averaged, controlled = any(line.average for line in lines), any(line.continued or line.control_note for line in lines)
    columns = [
        (probe, scalar)
        for probe, scalars in headlines.items()
        for scalar in scalars
        if any(line.probes[probe, scalar] or line.failed[probe] for line in lines)
    ]
    unit = f" in {metric.unit}" if metric.unit else ""
    best = "highest" if metric.higher_is_better else "lowest"
    caption = f"Test and training {metric.label}{unit}; t_w: epoch of the switch; start: test {metric.label} there; "
    caption += f"* {best} test {metric.label} of a branch"
    if averaged:
        caption += f"; average: test {metric.label} of the average of the weights"
    if controlled:
        caption += "; continued: the unrelaxed network trained on from t_w with the branch's settings"
    alone = {probe for segment in segments for probe, found in segment.probe_details.items() if _in_units_of_its_own(found)}
    if names := [scalar for probe, scalar in columns if probe in alone and scalar.endswith("_shared")]:
        caption += f"; {' and '.join(names)} of a network with weights that were equal: not comparable with the trunk's"
    if others := sum(bool(segment.noise) for segment in segments):
        caption += f"; not among these: {others} segments with another order of batches"
    if any(len(line.test) > 1 for line in lines):
        caption += "; ±: sample standard deviation over seeds"
    headings = [
        "network",
        "t_w",
        "start",
        "train",
        "test",
        "",
        *(["average"] if averaged else []),
        *(["continued"] if controlled else []),
        *(_heading(column, columns) for column in columns),
    ]
    texts = []
    for line in lines:
        at = "" if line.switch is None else f"{line.switch:g}" if line.switch == int(line.switch) else f"{line.switch:.2f}"
        mark = f"{line.diverged} diverged" if line.diverged else "*" if line.best else ""
        scores = (spread(values, metric.digits) if values or not line.note else "" for values in (line.start, line.train, line.test))
        cells = [line.name, at, *scores, " ".join(filter(None, (mark, line.note)))]
        if averaged:
            cells.append(spread(line.average, metric.digits) if line.average else "")
        if controlled:
            cells.append(spread(line.continued, metric.digits) if line.continued else line.control_note)
        texts.append([*cells, *(_cell(line, column) for column in columns)])
    return Summary(
        caption=f"{caption}.",
        headings=headings,
        lines=texts,
        best=[index for index, line in enumerate(lines) if line.best],
        places=[line.place for line in lines],
        pending=[index for index, line in enumerate(lines) if line.note],
    )


def _in_units_of_its_own(details: Mapping[str, Any]) -> bool:
    """Whether a probe said so of a network at any moment."""
    return any("incomparable" in found for found in details.values())


@attrs.frozen
class SummaryTable:
    """The summary for ``rich``: one table where it fits, else several that share the columns ``network`` and ``t_w``."""

    content: Summary

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        """Lay the columns out in the width there is."""
        from rich.text import Text

        for columns in self.split(options.max_width):
            yield self.part(columns)
        yield Text(self.content.caption, style="dim italic")

    def split(self, width: int) -> list[list[int]]:
        """Indices of the columns of each table."""
        content = self.content
        widths = [max(len(cells[index]) for cells in (content.headings, *content.lines)) + GAP for index in range(len(content.headings))]
        return columns_of_tables(widths, width, names=2)

    def part(self, columns: Sequence[int]) -> Table:
        """The table of some columns."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, GAP - 1, 0, 0))
        for index in columns:
            heading = self.content.headings[index]
            table.add_column(Text(plain(heading)), justify="left" if heading in ("network", "") else "right", no_wrap=True)
        for index, cells in enumerate(self.content.lines):
            style = "bold" if index in self.content.best else "dim" if index in self.content.pending else None
            table.add_row(*(Text(plain(cells[column])) for column in columns), style=style)
        return table


def _cell(line: Row, column: tuple[str, str]) -> str:
    value, failed = number(line.probes[column]), line.failed[column[0]]
    return value if not failed else f"{value} ({failed} failed)" if value else "failed"


def _heading(column: tuple[str, str], columns: Sequence[tuple[str, str]]) -> str:
    probe, scalar = column
    return scalar if sum(other == scalar for _, other in columns) == 1 else f"{probe} {scalar}"


def number(values: Sequence[float]) -> str:
    """Mean, and the sample standard deviation where there are several, with four significant digits; empty where there is nothing."""
    if not values:
        return ""
    magnitude = max(abs(value) for value in values)
    if magnitude == 0:
        return "0"
    digits = max(0, 3 - math.floor(math.log10(magnitude)))
    return spread(values, min(digits, 4)) if 1e-3 <= magnitude < 1e6 else f"{statistics.fmean(values):.2e}"
