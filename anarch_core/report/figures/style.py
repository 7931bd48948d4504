"""How figures look: sizes, colours that colour-blind readers tell apart, axes in the field's symbols, files of reproducible bytes."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import Bbox

from anarch_core.files.replacing import replacing
from anarch_core.report.evidence import FinishedRun
from anarch_core.report.spread import Spread

WIDE = 7.2
"""Inches: the text width of a paper."""

NARROW = 3.5
"""Inches: the width of a column of a paper."""

PNG_DPI = 200

INK = "#000000"
"""Colour of text, and of what is no series."""

CONTROL = "#767676"
"""Colour of the control, the network that went on without a switch."""

SERIES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito (2008)."""

SWITCH_TIME = "switch time $t_w$ (epochs)"
"""Label of an axis of switch times."""

MOMENTS: Mapping[str, Mapping[str, Any]] = {
    "start": {"fmt": "o:", "mfc": "none", "mew": 1.1},
    "end": {"fmt": "o-"},
}
"""How every figure marks what was found at the switch (hollow, dotted) and after training (filled, solid)."""
WHEN = {"start": "at the switch", "end": "after training"}
"""The two moments of a measurement, in words."""

CONTINUED: Mapping[str, Any] = {"color": CONTROL, "fmt": "s-", "markersize": 3.5, "label": "continued"}
"""How every figure marks the control, after its training; see :func:`control`."""


def control(run: FinishedRun) -> Mapping[str, Any]:
    """:data:`CONTINUED`, with the network that it is called by."""
    return {**CONTINUED, "label": f"{run.constrained} continued"}


RC: Any = {
    "font.family": "DejaVu Sans",
    "mathtext.fontset": "dejavusans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "errorbar.capsize": 2,
    "svg.fonttype": "path",
    "svg.hashsalt": "anarch",
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.wspace": 0.03,
}


P = ParamSpec("P")


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """This style alone: neither the caller's settings count nor a ``matplotlibrc`` in the working directory, which could start LaTeX."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(RC)
        yield


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function that draws a figure draw it in this style, whatever the settings of matplotlib are."""

    @functools.wraps(draw)
    def call(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with _style():
            return draw(*args, **kwargs)

    return call


def grid(rows: int, columns: int, *, narrow: bool, height: float = 2.3) -> tuple[Figure, list[list[Axes]]]:
    """A figure of panels; ``narrow`` puts all of them below each other, for a phone or one column of a paper.

    Returns:
        the figure, and the axes by row and column of the wide layout.
    """
    shape = (rows * columns, 1) if narrow else (rows, columns)
    width = NARROW if narrow or columns == 1 else WIDE
    if columns == 1 and not narrow:
        width = 4.8
    figure = Figure(figsize=(width, height * shape[0] + 0.35), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots(*shape, squeeze=False)
    flat = list(axes.flat)
    for panel in flat:
        panel.patch.set_alpha(0)
    return figure, [flat[row * columns : (row + 1) * columns] for row in range(rows)]


Panel = Callable[[Axes, FinishedRun, Mapping[str, str]], None]
"""Draws a run; the last argument gives the colour of every relaxation."""


def each_run(runs: Sequence[FinishedRun], draw: Sequence[Panel], *, narrow: bool) -> Figure:
    """A figure with a row of panels per run, and one legend; panels that show the same have equal axes."""
    names = dict.fromkeys(series.relaxation for run in runs for series in run.series)
    colours = {name: SERIES[index % len(SERIES)] for index, name in enumerate(names)}
    figure, axes = grid(len(runs), len(draw), narrow=narrow)
    for run, row in zip(runs, axes, strict=True):
        for panel, function in zip(row, draw, strict=True):
            function(panel, run, colours)
            if len(runs) > 1:
                panel.set_title(run.label, loc="left")
            if not panel.has_data():
                panel.grid(visible=False)
                panel.set(xticks=[], yticks=[])
                panel.text(0.5, 0.5, "not measured", transform=panel.transAxes, ha="center", color=CONTROL)
    equal_axes(figure.axes)
    legend(figure)
    return figure


def legend(figure: Figure) -> None:
    """One legend above all panels, every label once, in as many columns as fit."""
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    labels = list(found)
    width = figure.get_size_inches()[0] - 0.2
    columns = next(n for n in range(len(labels), 0, -1) if n == 1 or _legend_width(labels, n) <= width)
    figure.legend(list(found.values()), labels, loc="outside upper left", ncols=columns, handlelength=1.8, columnspacing=1.2)


def _legend_width(labels: Sequence[str], columns: int) -> float:
    """Inches, a little more than it will be; labels go down the columns, the first of which are the longer ones."""
    rows, longer = divmod(len(labels), columns)
    ends = itertools.accumulate(rows + (column < longer) for column in range(columns))
    widths, start = [], 0
    for end in ends:
        widths.append(0.45 + 0.07 * max(len(label.replace("\\", "").replace("$", "")) for label in labels[start:end]))
        start = end
    return sum(widths)


def time_colours(times: Iterable[float]) -> dict[float, Any]:
    """Colours from early (dark) to late (light), evenly by rank, leaving out the end of the map that paper swallows."""
    ordered = sorted(set(times))
    colours = mpl.colormaps["viridis"]
    return {time: colours(0.88 * index / max(len(ordered) - 1, 1)) for index, time in enumerate(ordered)}


def time_bar(figure: Figure, axes: Sequence[Axes], colours: Mapping[float, Any], label: str) -> None:
    """A scale beside the panels with one box per time."""
    times = list(colours)
    bar = figure.colorbar(
        mpl.cm.ScalarMappable(
            mpl.colors.BoundaryNorm(range(len(times) + 1), len(times)), mpl.colors.ListedColormap(list(colours.values()))
        ),
        ax=list(axes),
        aspect=28,
        pad=0.02,
        fraction=0.06,
    )
    shown = range(0, len(times), -(-len(times) // 12))
    bar.set_ticks([index + 0.5 for index in shown], labels=[f"{times[index]:g}" for index in shown])
    bar.ax.tick_params(which="both", length=0)
    bar.outline.set_visible(False)
    bar.set_label(label)


def equal_axes(panels: Iterable[Axes]) -> None:
    """Give panels with the same labels one scale and the same ends on both axes, so that a look compares them."""
    alike: dict[tuple[str, str], list[Axes]] = {}
    for panel in panels:
        if panel.has_data():
            alike.setdefault((panel.get_xlabel(), panel.get_ylabel()), []).append(panel)
    for group in alike.values():
        _equal(group)


def _equal(panels: Sequence[Axes]) -> None:
    if {panel.get_yscale() for panel in panels} == {"linear", "log"}:
        positive = all(panel.dataLim.y0 > 0 for panel in panels)
        for panel in panels:
            panel.set_yscale("log" if positive else "linear")
    everything = Bbox.union([panel.dataLim for panel in panels]).get_points()
    for panel in panels:
        panel.update_datalim(everything)  # so that margins are those of the common range, and no marker is cut
        panel.autoscale_view()
    lows, highs = zip(*(panel.get_ylim() for panel in panels), strict=True)
    low, high = min(lows), max(highs)
    if panels[0].get_yscale() == "log":  # limits that were set leave the room of their own panel, which may be less than a marker
        room, (least, most) = (high / low) ** 0.05, everything[:, 1]
        low = min(low, least / room) if low <= least else low
        high = max(high, most * room) if most <= high else high
    widest = max(panels, key=lambda panel: panel.get_xlim()[1])
    lefts, rights = zip(*(panel.get_xlim() for panel in panels), strict=True)
    for panel in panels:
        panel.set_ylim(low, high)
        if panel.get_yscale() == "log" and high < 1000 * low:
            plain_numbers(panel)
        if panel.get_xscale() == "symlog":
            panel.xaxis.set_major_locator(FixedLocator(list(widest.get_xticks())))
        panel.set_xlim(min(lefts), max(rights))


def time_axis(axes: Axes, times: Iterable[float], label: str) -> None:
    """A logarithmic axis of epochs that has a place for epoch 0."""
    last = max([*times, 1.0])
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    ticks = [0.0] + [digit * 10.0**power for power in range(7) for digit in (1, 2, 5) if digit * 10**power <= last * 1.05]
    if len(ticks) > 8:
        ticks = [tick for tick in ticks if not f"{tick:g}".startswith("2")]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlim(-0.12 if last <= 5 else -0.18, last * 1.35)
    axes.set_xlabel(label)


def log_axis(axes: Axes, values: Iterable[float], *, always: bool = False) -> None:
    """A logarithmic y axis where positive values span more than a factor of ten, or always where all are positive."""
    known = list(values)
    if known and min(known) > 0 and (always or max(known) > 10 * min(known)):
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, min(known) / 4), high)  # an interval may reach down to nothing
        if max(known) < 1000 * min(known):
            plain_numbers(axes)


def plain_numbers(axes: Axes) -> None:
    """Write 0.1, 0.2, 0.5 on a logarithmic y axis of few decades."""
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def points(axes: Axes, places: Sequence[float], spreads: Sequence[Spread | None], **style: Any) -> None:
    """Means with their t-intervals as error bars, joined by a line."""
    known = [(place, spread) for place, spread in zip(places, spreads, strict=True) if spread is not None]
    if known:
        axes.errorbar(
            [place for place, _ in known],
            [spread.mean for _, spread in known],
            yerr=margins([spread for _, spread in known]),
            elinewidth=0.9,
            **style,
        )


def margins(spreads: Sequence[Spread]) -> list[float] | None:
    """Lengths of error bars, 0 where there are too few seeds for an interval; None where no bar is to be drawn."""
    found = [spread.margin or 0.0 for spread in spreads]
    return found if any(found) else None


def level(axes: Axes, spread: Spread | None, *, label: str, colour: str, dashes: str = "-") -> None:
    """A horizontal line at the mean, with its t-interval at the right end."""
    if spread is None:
        return
    axes.axhline(spread.mean, color=colour, linestyle=dashes, linewidth=1.1, label=label)
    if spread.margin:
        before = sum(line.get_gid() == "level" for line in axes.lines)
        axes.lines[-1].set_gid("level")
        place = axes.get_yaxis_transform()
        axes.errorbar(0.985 - 0.022 * before, spread.mean, yerr=spread.margin, fmt="none", ecolor=colour, elinewidth=1.4, transform=place)


def svg(figure: Figure) -> str:
    """The figure as SVG on a transparent ground, the same text each time."""
    buffer = io.StringIO()
    with _style():
        # Not savefig(), which draws everything once more to no purpose.
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    figure.set_layout_engine("none")  # the places are found
    return buffer.getvalue()


def write(figure: Figure, stem: Path) -> str:
    """Write ``stem.png`` and ``stem.svg``; the SVG is returned too."""
    drawn = svg(figure)
    with replacing(stem.with_suffix(".svg")) as file:
        file.write(drawn.encode())
    figure.patch.set(facecolor="white", alpha=1.0)
    figure.set_dpi(PNG_DPI)
    with _style(), replacing(stem.with_suffix(".png")) as file:
        FigureCanvasAgg(figure).print_png(file, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return drawn
