"""How much translation equivariance a relaxed network keeps, by switch time."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from anarch_core.report import (
    AbstractFigure,
    FinishedRun,
    Series,
    each_run,
    over_seeds,
    probed,
    quantity,
    require_probes,
    sentences,
    styled,
)

PANELS = {
    "equivariance_error": quantity("equivariance", "equivariance_error", "equivariance error of layers", scale="linear"),
    "output_change": quantity("equivariance", "output_change", "change of the output", scale="linear"),
    "distance": quantity("equivariance", "distance", "distance of weights (pixels)", scale="logarithmic"),
    "rotation_error": quantity("equivariance", "rotation_error", "rotation error of layers", scale="linear"),
    "rotation_change": quantity("equivariance", "rotation_change", "change by rotation", scale="linear"),
}
SHOWS = {
    "equivariance_error": "how far the relaxed layers are from commuting with it, |g(Th) − T g(h)| / |g(h)| of a layer g on its own inputs "
    "h away from the borders, root mean square over layers; a convolution has 0.",
    "output_change": "how far the network's output moves, |f(Tx) − f(x)| / |f(x)|; borders and strides move that of a CNN too.",
    "distance": "root mean square distance of the weights from the centres of their receptive fields.",
}
PLACES = {1: [""], 2: ["Left: ", "Right: "], 3: ["Left: ", "Middle: ", "Right: "], 4: ["Left: ", "Second: ", "", ""]}


class Equivariance(AbstractFigure):
    """Equivariance of the layers, invariance of the whole network, and where the weights are."""

    @styled
    def draw(self, runs: Sequence[FinishedRun], *, narrow: bool = False) -> Figure:
        """Equivariance error, change of the output and distance of the weights, at the switch and after training, against switch time.

        Where layers are made to commute with rotations, these take the place of the distance.

        Raises:
            NothingToDrawError: the probe equivariance was not run.
        """
        require_probes(runs, "equivariance")
        return each_run(runs, [PANELS[scalar] for scalar in _measured(runs)], narrow=narrow)

    def caption(self, runs: Sequence[FinishedRun]) -> str:
        """What the panels show, and how much each relaxation unlearns."""
        panels = _measured(runs)
        said = [place + SHOWS[scalar] for place, scalar in zip(PLACES[len(panels)], panels, strict=True) if scalar in SHOWS]
        return sentences(
            f"What a shift by {_shift(runs)} does.",
            *(text[0].upper() + text[1:] for text in said),
            "The others: likewise where layers were made to commute with rotations by 90°, and images are turned." if _turned(runs) else "",
            over_seeds(runs, "bars are 95 % t-intervals over {n} seeds, those of horizontal lines at the right end"),
            *(f"{series.label(runs)}: {seen}" for run in runs for series in run.series if (seen := _seen(series))),
        )

    def findings(self, series: Series) -> list[str]:
        """The equivariance error for the first switch and the last, and from scratch."""
        seen = _seen(series)
        return [seen[0].upper() + seen[1:]] if seen else []


def _seen(series: Series) -> str:
    errors = {switch: probed(group, "equivariance", "end", "equivariance_error") for switch, group in series.branches.items()}
    known = {switch: spread.mean for switch, spread in errors.items() if spread is not None}
    if not known:
        return ""
    first, last = min(known), max(known)
    text = f"the layers' equivariance error after training is {known[first]:.3g} for t_w = {first:g}"
    text += f" and {known[last]:.3g} for t_w = {last:g}" if last != first else ""
    scratch = probed(series.scratch, "equivariance", "end", "equivariance_error")
    return text + (f"; from scratch it is {scratch.mean:.3g}." if scratch is not None else ".")


def _measured(runs: Sequence[FinishedRun]) -> list[str]:
    """The scalars that have a panel: those of shifts, of which rotations take the place of the last, where anything was measured."""
    scalars = [name for name in PANELS if name not in (["distance"] if _turned(runs) else ["rotation_error", "rotation_change"])]
    segments = [segment for run in runs for segment in run.results.segments]
    ends = [segment.scalars("equivariance", moment) for segment in segments for moment in ("start", "end")]
    return [name for name in scalars if any(found.get(name) is not None for found in ends)] or scalars


def _turned(runs: Sequence[FinishedRun]) -> bool:
    """Whether a layer said how it is to commute with rotations."""
    segments = (segment for run in runs for kind in ("trunk", "branch") for segment in run.segments(kind))
    return any(
        segment.scalars("equivariance", moment).get("rotation_error") is not None for segment in segments for moment in ("start", "end")
    )


def _shift(runs: Sequence[FinishedRun]) -> str:
    shifts = {
        int(found["shift"]) for run in runs for segment in run.segments("branch") if (found := segment.details("equivariance", "end"))
    }
    return " or ".join(f"{shift} pixel{'s' * (shift != 1)}" for shift in sorted(shifts)) or "some pixels"
