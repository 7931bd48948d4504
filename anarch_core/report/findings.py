"""What the runs show, in sentences that a reader can check against the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

from anarch_core.objective import Metric
from anarch_core.report.evidence import FinishedRun, Series, score
from anarch_core.report.figure import Table
from anarch_core.report.spread import FEWEST, Spread
from anarch_core.report.text import difference, in_units, sentences, together


def findings(run: FinishedRun, of_figures: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """What one run shows, a paragraph per relaxation and one on how far to trust it.

    Args:
        run: the run.
        of_figures: by relaxation, what the figures say of it.
    """
    paragraphs = [sentences(*_of_series(series), *(of_figures or {}).get(series.relaxation, ())) for series in run.series]
    doubts = _doubts(run) if run.series else []
    return [*paragraphs, *([sentences(*doubts)] if doubts else [])]


def paired(run: FinishedRun) -> list[Table]:
    """Branch less control by seed, for every relaxation that has both; nothing where there is one seed."""
    tables = []
    for series in run.series:
        gains = series.gains
        if max(map(len, gains.values()), default=0) < 2:
            continue
        metric, digits = run.metric, run.metric.digits
        unit = " points of" if metric.unit == "%" else ""
        control = f"the {run.constrained} continued"
        seeds = sorted({segment.seed for segment in run.segments("continued")})
        rows = [
            [f"{switch:g}", *(_signed(found[seed], digits) if seed in found else "–" for seed in seeds), *_cells(found, digits)]
            for switch, found in gains.items()
        ]
        tables.append(
            Table(
                caption=together(
                    f"{series.relaxation} less {control}, in{unit} test {metric.label}, seed by seed; the intervals are "
                    f"t-intervals of these differences{'' if len(seeds) >= FEWEST else f', for which {len(seeds)} seeds are too few'}"
                ),
                headings=["t_w", *(f"seed {seed}" for seed in seeds), "mean", "95 % interval"],
                rows=rows,
            )
        )
    return tables


def _cells(gains: Mapping[int, float], digits: int) -> list[str]:
    """Mean and interval."""
    spread = Spread.of(gains.values())
    if spread is None:
        return ["–", "–"]
    ends = [_signed(end, digits) for end in spread.interval]
    return [_signed(spread.mean, digits), " to ".join(ends) or "–"]


def _signed(value: float, digits: int) -> str:
    return together(f"{value:+.{digits}f}")


def _doubts(run: FinishedRun) -> list[str]:
    doubts = [f"The best switch time is picked by the test {run.metric.label} that is then quoted, which flatters it."]
    count = len(run.seeds)
    if count == 1:
        small = "difference of a point or two" if run.metric.unit == "%" else "small difference"
        doubts.append(f"There is one seed, so nothing tells a {small} from chance: run again with --seeds 0-4.")
    elif count < FEWEST:
        doubts.append(f"There are {count} seeds, too few for an interval: run again with --seeds 0-4.")
    reached = score((segment for series in run.series for group in series.branches.values() for segment in group), "final", run.test_score)
    if run.test_samples and reached is not None:
        said = f"The test set has {run.test_samples:,} samples"
        if run.metric.name == run.metric.label == "accuracy":  # the part of samples that are right; other scores are no such mean
            error = (reached.mean * (100 - reached.mean) / run.test_samples) ** 0.5
            said += f", so an accuracy of {reached.mean:.0f} % has a standard error of {error:.1f} points (binomial), "
            said += "which more seeds do not lessen"
        doubts.append(f"{said}.")
    return doubts + _lengths(run)


def _lengths(run: FinishedRun) -> list[str]:
    """Whether branches were trained longer than the network that they are compared with, and what the fair comparison is."""
    whole = max((run.epochs_in_all(segment) for segment in run.trunk), default=None)
    epochs = {
        switch: max(run.epochs_in_all(segment) for segment in group) for series in run.series for switch, group in series.branches.items()
    }
    longer = {switch: length for switch, length in epochs.items() if whole is not None and length > whole * (1 + 1e-9)}
    said = []
    if longer:
        at = ", ".join(f"{switch:g}" for switch in longer)
        which = "Every branch" if len(longer) == len(epochs) else f"The branch{'es' * (len(longer) > 1)} with t_w = {at}"
        ends = f"{min(longer.values()):g}" if len(set(longer.values())) == 1 else f"{min(longer.values()):g} to {max(longer.values()):g}"
        said.append(f"{which} had more epochs in all ({ends}) than the {run.constrained} ({whole:g})")
    if run.segments("continued"):
        return [f"{said[0]}; the fair comparison is with the {run.constrained} continued, which had as many."] if said else []
    absent = (
        f"there is no control that continued the {run.constrained} with the branches' settings, so a gain may be that of training longer, "
        "at another learning rate: run again with --control continued,scratch."
    )
    return [f"{said[0]}, and {absent}" if said else absent.capitalize()]


def _of_series(series: Series) -> list[str]:
    metric, key = series.run.metric, series.run.test_score
    sign = 1 if metric.higher_is_better else -1
    side = "above" if metric.higher_is_better else "below"
    finals = {switch: score(group, "final", key) for switch, group in series.branches.items()}
    reached = {switch: spread for switch, spread in finals.items() if spread is not None}
    if not reached:
        return [f"Every {series.relaxation} branch diverged."]
    best = max(reached, key=lambda switch: sign * reached[switch].mean)
    trunk = score(series.run.trunk, "final", key)
    said = [f"The best {series.relaxation} branch is the one that switched at epoch {best:g}; it ends at a test {metric.label} of "]
    said[0] += in_units(reached[best], metric)
    if trunk is not None:
        better = [switch for switch, spread in reached.items() if sign * (spread.mean - trunk.mean) > 0]
        said[0] += f", the {series.run.constrained} itself at {in_units(trunk, metric)}."
        said.append(f"{_count(len(better), len(reached))} {side} the {series.run.constrained}{_at(better, reached)}.")
    else:
        said[0] += "."
    compared = {switch: gains for switch, gains in series.gains.items() if switch in reached}
    if compared:
        ahead = [switch for switch, gains in compared.items() if sign * sum(gains.values()) > 0]
        said.append(
            f"Against the control, the {series.run.constrained} trained on from the same moment with the same settings, "
            f"{_count(len(ahead), len(compared)).lower()} ahead{_at(ahead, compared)}; "
        )
        switch = best if best in compared else max(compared, key=lambda at: sign * sum(compared[at].values()))
        said[-1] += f"at t_w = {switch:g} the difference is {_difference(compared[switch], metric)}."
    scratch = score(series.scratch, "final", key)
    if scratch is not None:
        better = [switch for switch, spread in reached.items() if sign * (spread.mean - scratch.mean) > 0]
        count = _count(len(better), len(reached)).lower()
        said.append(f"From scratch, the relaxed network reaches {in_units(scratch, metric)}; {count} {side} that.")
    return said


def _difference(gains: Mapping[int, float], metric: Metric) -> str:
    spread = Spread.of(gains.values())
    if spread is None or spread.count == 1:
        return difference(sum(gains.values()), metric)
    ahead = sum((value > 0) == metric.higher_is_better and value != 0 for value in gains.values())
    paired = f"paired over {spread.count} seeds, ahead in {ahead}"
    if not spread.interval:
        return f"{difference(spread.mean, metric)} ({paired})"
    low, high = spread.interval
    ends = f"{low:+.{metric.digits}f} to {high:+.{metric.digits}f}"
    verdict = "; it includes 0" if low <= 0 <= high else ""
    return f"{difference(spread.mean, metric)}, 95 % t-interval {ends} ({paired}{verdict})"


def _count(some: int, all_: int) -> str:
    if all_ == 1:
        return "It ends" if some else "It does not end"
    if some in (0, all_):
        return f"All {all_} branches end" if some else f"None of the {all_} branches ends"
    return f"{some} of {all_} branches end{'s' if some == 1 else ''}"


def _at(some: Sequence[float], all_: Sized) -> str:
    return f" (t_w = {', '.join(f'{switch:g}' for switch in some)})" if some and len(some) < len(all_) else ""
