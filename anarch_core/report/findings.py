"""What the runs show, in sentences that a reader can check against the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.report.evidence import FinishedRun, Series, Spread, score
from anarch_core.report.text import percent, sentences


def findings(run: FinishedRun, of_figures: Mapping[str, Sequence[str]] | None = None) -> list[str]:
    """What one run shows, a paragraph per relaxation and one on how far to trust it.

    Args:
        run: the run.
        of_figures: by relaxation, what the figures say of it.
    """
    paragraphs = [sentences(*_of_series(series), *(of_figures or {}).get(series.relaxation, ())) for series in run.series]
    seeds = {segment.seed for segment in run.results.segments}
    doubts = []
    if run.series:
        doubts.append("The best switch time is picked by the test accuracy that is then quoted, which flatters it.")
    if len(seeds) == 1:
        doubts.append("There is one seed, so nothing tells a difference of a point or two from chance: run again with --seeds 0-4.")
    if not run.segments("continued") and run.series:
        doubts.append(
            "There is no control that continued the CNN with the branches' settings, so a gain may be that of training longer, at another "
            "learning rate: run again with --control continued,scratch."
        )
    return [*paragraphs, *([" ".join(doubts)] if doubts else [])]


def _of_series(series: Series) -> list[str]:
    finals = {switch: score(group, "final", "test_accuracy") for switch, group in series.branches.items()}
    reached = {switch: spread for switch, spread in finals.items() if spread is not None}
    if not reached:
        return [f"Every {series.relaxation} branch diverged."]
    best = max(reached, key=lambda switch: reached[switch].mean)
    trunk = score(series.run.trunk, "final", "test_accuracy")
    said = [f"The best {series.relaxation} branch is the one that switched at epoch {best:g}; it ends at a test accuracy of "]
    said[0] += percent(reached[best])
    if trunk is not None:
        above = [switch for switch, spread in reached.items() if spread.mean > trunk.mean]
        said[0] += f", the CNN itself at {percent(trunk)}."
        said.append(f"{_count(len(above), len(reached))} above the CNN{_at(above, reached)}.")
    else:
        said[0] += "."
    continued = series.continued
    compared = {
        switch: gains for switch in reached if switch in continued and (gains := _gains(series.branches[switch], continued[switch]))
    }
    if compared:
        above = [switch for switch, gains in compared.items() if sum(gains) > 0]
        said.append(
            f"Against the control, the CNN trained on from the same moment with the same settings, "
            f"{_count(len(above), len(compared)).lower()} ahead{_at(above, compared)}; "
        )
        switch = best if best in compared else max(compared, key=lambda at: sum(compared[at]))
        gain = Spread.of(compared[switch])
        if gain is not None:
            wins = sum(value > 0 for value in compared[switch])
            over = f" ± {gain.deviation:.1f} points (paired over {gain.count} seeds, ahead in {wins})" if gain.count > 1 else " points"
            said[-1] += f"at t_w = {switch:g} the difference is {gain.mean:+.1f}{over}."
    scratch = score(series.scratch, "final", "test_accuracy")
    if scratch is not None:
        above = [switch for switch, spread in reached.items() if spread.mean > scratch.mean]
        said.append(f"From scratch, the relaxed network reaches {percent(scratch)}; {_count(len(above), len(reached)).lower()} above that.")
    return said


def _gains(branches: Sequence[SegmentResult], controls: Sequence[SegmentResult]) -> list[float]:
    """Branch less control in points of test accuracy, for every seed that has both."""
    accuracies = {segment.seed: segment.score("final", "test_accuracy") for segment in controls}
    pairs = [(segment.score("final", "test_accuracy"), accuracies.get(segment.seed)) for segment in branches]
    return [branch - control for branch, control in pairs if branch is not None and control is not None]


def _count(some: int, all_: int) -> str:
    if all_ == 1:
        return "It ends" if some else "It does not end"
    if some in (0, all_):
        return f"All {all_} branches end" if some else f"None of the {all_} branches ends"
    return f"{some} of {all_} branches end{'s' if some == 1 else ''}"


def _at(some: Sequence[float], all_: Sized) -> str:
    return f" (t_w = {', '.join(f'{switch:g}' for switch in some)})" if some and len(some) < len(all_) else ""
