"""``anarch report`` from Python, and single figures of it, for a cell of a notebook."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from anarch_core.errors import ConfigError, close_matches, did_you_mean, plain
from anarch_core.experiment.results import Results
from anarch_core.html import element

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from anarch_core.plugin.registry import Registry
    from anarch_core.report.writer import Report

Runs = Results | Path | str | Sequence[Results | Path | str]
"""Results, run directories, or several of them."""

DOTS_PER_INCH = 110
"""Of a figure in a notebook."""


@attrs.frozen(kw_only=True, repr=False)
class DrawnFigure:
    """A figure of the report; a notebook shows it with its caption.

    Attributes:
        name: of the figure.
        caption: what it shows, how to read it, and what is seen.
        figure: of matplotlib, to change or to save: ``drawn.figure.savefig("figure.pdf")``.
    """

    name: str
    caption: str
    figure: Figure

    def __repr__(self) -> str:
        return f"figure {self.name}: {plain(self.caption, 5000)}"

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.figure.savefig(file, format="png", dpi=DOTS_PER_INCH, facecolor="white", bbox_inches="tight")
        return file.getvalue()

    def _repr_html_(self) -> str:
        source = f"data:image/png;base64,{base64.b64encode(self._repr_png_()).decode()}"
        image = element("img", src=source, alt=self.name, style="max-width: 100%")
        return str(element("div", image, element("div", self.caption, style="opacity: 0.7")))


def figure(runs: Runs, name: str = "training-curves", *, registry: Registry | None = None) -> DrawnFigure:
    """Draw one figure of the report: the last line of a cell shows it.

    Args:
        runs: results or run directories, put side by side where there are several.
        name: of the figure; an unknown one is refused with all that there are.
        registry: where figures of plugins are looked up, the installed plugins by default.

    Raises:
        ConfigError: there is no such figure.
        NothingToDrawError: the runs do not have what it shows; the message says what is missing.
        RunError: a directory holds no run, or nothing of it is finished.
    """
    from anarch_core.report.catalogue import figures
    from anarch_core.report.writer import read_runs

    found = {listed.info.name: listed for listed in figures(registry)}
    if name not in found:
        msg = f"there is no figure {plain(name, 100)!r}{did_you_mean(close_matches(str(name), found))}; there are {', '.join(found)}"
        raise ConfigError(msg)
    read = read_runs(_paths(runs))
    return DrawnFigure(name=name, figure=found[name].draw(read), caption=found[name].caption(read))


def write_report(runs: Runs, out: Path | str | None = None) -> Report:
    """Write one self-contained HTML page about runs, and the figures as PNG and SVG: ``anarch report``.

    Args:
        runs: results or run directories, put side by side where there are several.
        out: the page; by default ``report.html`` in the run directory, or in the working directory where there are several runs.

    Raises:
        RunError: a directory holds no run, or nothing of it is finished.
    """
    from anarch_core.report import writer

    return writer.write_report(_paths(runs), None if out is None else Path(out))


def _paths(runs: Runs) -> list[Path]:
    several = [runs] if isinstance(runs, (Results, Path, str)) else list(runs)
    if not several:
        msg = "no runs were given; pass results or run directories"
        raise ConfigError(msg)
    return [run.path if isinstance(run, Results) else Path(run) for run in several]
