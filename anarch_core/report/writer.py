"""Write figures and page of finished runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from anarch_core.display import Displayed, Overview
from anarch_core.errors import AnarchError, plain
from anarch_core.files.replacing import write_text
from anarch_core.html import Html, join, table
from anarch_core.report.catalogue import ListedFigure, figures
from anarch_core.report.evidence import FinishedRun
from anarch_core.report.figure import Table
from anarch_core.report.inline_svg import inline
from anarch_core.report.page import Drawn, Said, page
from anarch_core.report.text import sentences

LONGEST = 32
"""Letters of a run's name that fit above a panel."""


@attrs.frozen(kw_only=True, repr=False)
class Report(Displayed):
    """What was written.

    Attributes:
        path: the page.
        folder: where the figures lie.
        figures: names of those that were drawn, as ``<name>.png`` and ``<name>.svg``.
        missing: by title, why a figure was not drawn.
        damaged: sentences on files of the runs that are not what was written.
    """

    path: Path
    folder: Path
    figures: Sequence[str]
    missing: Mapping[str, str]
    damaged: Sequence[str] = ()

    def overview(self) -> Overview:
        """Where the page lies, and what is not on it; shown by ``print`` and by notebooks."""
        left_out = [f"left out: {title}: {reason}" for title, reason in self.missing.items()]
        facts = [("page", str(self.path)), ("figures", f"{self.folder}: {', '.join(self.figures)}")]
        return Overview(title="Report", facts=facts, notes=[*left_out, *(f"damaged: {text}" for text in self.damaged)])


def write_report(runs: Sequence[Path], out: Path | None = None) -> Report:
    """Draw the figures and write the page.

    A figure that cannot be drawn is left out, and the page says why.

    Args:
        runs: run directories, finished or not.
        out: the page; by default ``report.html`` in the run directory, or in the working directory where there are several runs.

    Returns:
        what was written: the figures of one run to ``figures`` in its directory, those of several beside the page.

    Raises:
        RunError: a directory holds no run, or nothing of it is finished.
    """
    read = read_runs(runs)
    page_path = out or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    folder = runs[0] / "figures" if len(runs) == 1 else page_path.with_name(f"{page_path.stem}-figures")
    folder.mkdir(parents=True, exist_ok=True)
    drawn: list[Drawn] = []
    said: list[Said] = []
    missing: dict[str, str] = {}
    for listed in figures():
        title = listed.info.title
        # A report without one figure is better than none.
        try:
            drawn.append(_drawn(listed, read, folder))
        except Exception as error:
            missing[title] = _in_words(error)
        try:
            said.append(_said(listed, read))
        except Exception as error:
            missing.setdefault(title, _in_words(error))
    write_text(page_path, page(read, drawn, said, missing, folder))
    damaged = [text for run in read for text in run.damaged]
    return Report(path=page_path, folder=folder, figures=[figure.name for figure in drawn], missing=missing, damaged=damaged)


def read_runs(paths: Sequence[Path]) -> list[FinishedRun]:
    """What run directories hold, each with a name of its own.

    Raises:
        RunError: a directory holds no run, or nothing of it is finished.
    """
    return [FinishedRun.read(path, label) for path, label in zip(paths, _labels(paths), strict=True)]


def _drawn(listed: ListedFigure, runs: Sequence[FinishedRun], folder: Path) -> Drawn:
    from anarch_core.report.figures.style import svg, write

    name, title = listed.info.name, listed.info.title
    wide = write(listed.draw(runs), folder / name)
    narrow = svg(listed.draw(runs, narrow=True))
    drawings = [inline(text, f"{name}-{width}", title, width) for text, width in ((wide, "wide"), (narrow, "narrow"))]
    return Drawn(name=name, title=title, caption=listed.caption(runs), drawings=drawings)


def _said(listed: ListedFigure, runs: Sequence[FinishedRun]) -> Said:
    """What a figure says beside its drawing, asked here and not by the page, which is written whatever a figure does."""
    found = {(run.label, series.relaxation): sentences(*listed.findings(series)) for run in runs for series in run.series}
    tables = {run.label: join(_table(one) for one in listed.tables(run)) for run in runs}
    heading = listed.figure.heading if any(tables.values()) else ""
    return Said(name=listed.info.name, heading=heading, findings=found, tables=tables)


def _table(content: Table) -> Html:
    return table(content.caption, content.headings, content.rows, strong=content.strong)


def _in_words(error: Exception) -> str:
    return str(error) if isinstance(error, AnarchError) else f"it failed: {type(error).__name__}: {plain(error)}"


def _labels(runs: Sequence[Path]) -> list[str]:
    """The directories' names, with a number where two have the same."""
    names = [path.resolve().name for path in runs]
    names = [name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…" for name in names]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({index + 1})" for index, name in enumerate(names)]
