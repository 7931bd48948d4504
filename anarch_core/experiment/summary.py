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
from anarch_core.objective import Metric

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table
    from rich.text import Text


@attrs.frozen(kw_only=True)
class Row:
    """One line of the summary: the same segment with every seed.

    Attributes:
        name: ``"trunk"``, ``"efcn"``, ``"scratch efcn"``, ...
        switch: epoch of the switch, None where there is none.
        start: test score at the start, per seed.
        train: final training score, per seed.
        test: final test score, per seed.
        average: the same of the average of the weights; empty where none was taken.
        continued: the same of the control that went on without a switch, per seed; empty where there is none.
        probes: by (probe, scalar), the values at the end, per seed.
        failed: by probe, for how many seeds it failed at the end.
        diverged: how many seeds diverged.
        best: whether no branch has a better mean test score.
    """

    name: str
    switch: float | None
    start: Sequence[float]
    train: Sequence[float]
    test: Sequence[float]
    average: Sequence[float] = ()
    continued: Sequence[float] = ()
    probes: Mapping[tuple[str, str], Sequence[float]] = attrs.field(factory=dict)
    failed: Mapping[str, int] = attrs.field(factory=dict)
    diverged: int = 0
    best: bool = False


def rows(segments: Iterable[SegmentResult], headlines: Mapping[str, Sequence[str]], metric: Metric) -> list[Row]:
    """Segments as lines of the summary: trunk, scratch, then by relaxation and switch time; a control stands beside its branch."""
    test = f"test_{metric.name}"
    groups: dict[tuple[int, str, float], list[SegmentResult]] = {}
    controls: dict[float, list[float]] = {}
    for segment in _of_seeds(segments):
        kind, relaxation, switch = segment.kind, segment.relaxation or "", segment.switch_epoch
        if kind == "continued" and switch is not None:
            controls.setdefault(switch, []).extend(_values([segment], "final", test))
        rank = ("trunk", "scratch", "branch", "continued").index(kind)
        name = {"trunk": "trunk", "branch": relaxation}.get(kind, f"{kind} {relaxation}".rstrip())
        groups.setdefault((rank, name, -1.0 if switch is None else switch), []).append(segment)
    branched = {switch for rank, _, switch in groups if rank == 2}
    lines = []
    for (rank, name, switch), group in sorted(groups.items(), key=lambda item: item[0]):
        if rank == 3 and switch in branched:
            continue
        line = Row(
            name=name,
            switch=None if switch < 0 else switch,
            start=_values(group, "start", test),
            train=_values(group, "final", f"train_{metric.name}"),
            test=_values(group, "final", test),
            average=_values(group, "average", test),
            continued=controls.get(switch, ()) if rank == 2 else (),
            probes={(probe, scalar): _probed(group, probe, scalar) for probe, scalars in headlines.items() for scalar in scalars},
            failed={probe: sum(segment.probe_failed(probe, "end") for segment in group) for probe in headlines},
            diverged=sum(segment.diverged for segment in group),
        )
        lines.append((rank, line))
    means = [statistics.fmean(line.test) for rank, line in lines if rank == 2 and line.test]
    best = (max if metric.higher_is_better else min)(means, default=None)
    return [attrs.evolve(line, best=rank == 2 and bool(line.test) and statistics.fmean(line.test) == best) for rank, line in lines]


def _of_seeds(segments: Iterable[SegmentResult]) -> Iterator[SegmentResult]:
    """Those of the order of batches that the seed gives: one of another order is no further seed."""
    return (segment for segment in segments if not segment.noise)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and the sample standard deviation where there are several: ``"88.8 ± 0.3"``."""
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _values(group: Iterable[SegmentResult], part: str, key: str) -> list[float]:
    return [value for segment in group if (value := segment.score(part, key)) is not None and not segment.diverged]


def _probed(group: Iterable[SegmentResult], probe: str, scalar: str) -> list[float]:
    found = (segment.scalars(probe, "end").get(scalar) for segment in group)
    return [value for value in found if value is not None]


@attrs.frozen(kw_only=True)
class Summary:
    """The summary as text, for a terminal or a page.

    Attributes:
        caption: how to read it.
        headings: of the columns: that of the network's name, an empty one over the mark of the best branch, all others over numbers.
        lines: cells.
        best: index of the line with the best test score of a branch; empty where there is no branch.
    """

    caption: str
    headings: Sequence[str]
    lines: Sequence[Sequence[str]]
    best: Sequence[int]


def summary(segments: Iterable[SegmentResult], headlines: Mapping[str, Sequence[str]], metric: Metric) -> Summary:
    """Segments as lines of text; see :func:`rows`.

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
    lines = rows(segments, headlines, metric)
    averaged, controlled = any(line.average for line in lines), any(line.continued for line in lines)
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
        cells = [line.name, at, *(spread(values, metric.digits) for values in (line.start, line.train, line.test)), mark]
        if averaged:
            cells.append(spread(line.average, metric.digits) if line.average else "")
        if controlled:
            cells.append(spread(line.continued, metric.digits) if line.continued else "")
        texts.append([*cells, *(_cell(line, column) for column in columns)])
    return Summary(caption=f"{caption}.", headings=headings, lines=texts, best=[index for index, line in enumerate(lines) if line.best])


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
            table.add_row(*(Text(plain(cells[column])) for column in columns), style="bold" if index in self.content.best else None)
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
