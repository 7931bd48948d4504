"""Captions: what a figure shows, how to read it, and what is seen."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from anarch_core.report.evidence import FinishedRun, Series, probed, score
from anarch_core.report.findings import percent, together

PAPER = "d'Ascoli et al. 2019"


def training_curves(runs: Sequence[FinishedRun]) -> str:
    """Figure 2."""
    return _said(
        f"Training loss and test accuracy against training time, counted for a branch from its switch (as {PAPER}, Fig. 2).",
        "The axis is logarithmic and includes epoch 0. Within an epoch the loss is that of the batches as they came.",
        _seeds(runs, "lines are means over {n} seeds, bands one standard deviation"),
        *(f"{series.label(runs)}: {_range(series)}." for run in runs for series in run.series),
    )


def performance(runs: Sequence[FinishedRun]) -> str:
    """Figure 3."""
    from anarch_core.report.figures.switch_time import SHARPNESS, sharpness_measured

    measured = sharpness_measured(runs)
    panels = {
        "gradient": "norm of the training loss's gradient",
        "hessian": "largest eigenvalue of its Hessian",
    }
    missing = [probe for probe, scalar in SHARPNESS if (probe, scalar) not in measured]
    return _said(
        f"Final test accuracy against switch time (as {PAPER}, Fig. 3), with the CNN at the end of its training, the relaxed network from "
        "scratch, and the CNN continued from the same moment with the branch's settings.",
        f"Then the {' and the '.join(panels[probe] for probe, _ in measured)}, at the switch and after training." if measured else "",
        _seeds(runs, "bars and bands are one standard deviation over {n} seeds"),
        *_sharper(runs, measured),
        f"There is no panel for the {' and the '.join(panels[probe] for probe in missing)}: the probe{'s' * (len(missing) > 1)} "
        f"{' and '.join(missing)} did not run."
        if missing
        else "",
    )


def deviation(runs: Sequence[FinishedRun]) -> str:
    """Figure 4."""
    seen = []
    for run in runs:
        for series in run.series:
            deltas = [
                spread.mean for group in series.branches.values() if (spread := probed(group, "delta", "end", "off_local")) is not None
            ]
            if len(deltas) > 1 and max(deltas) > 0:
                falls = all(later <= earlier for earlier, later in itertools.pairwise(deltas))
                how = "falls at every step" if falls else "does not fall at every step"
                seen.append(f"{series.label(runs)}: δ {how} with later switches, from {deltas[0]:.3g} to {deltas[-1]:.3g}.")
    return _said(
        f"Deviation δ from the constrained subspace, the norm of the off-local weights over that of all relaxed weights, after training "
        f"(as {PAPER}, Fig. 4): against switch time, the loss at the switch, and the final test accuracy.",
        "Squares: the part that giving up sharing added, over the same norm. The diamond is the relaxed network from scratch.",
        _seeds(runs, "bars are one standard deviation over {n} seeds"),
        *seen,
    )


def filters(runs: Sequence[FinishedRun]) -> str:
    """Figures 5 and 6."""
    from anarch_core.report.figures.weights import chosen_filters

    channels = [
        f"channel {channel} for {series.label(runs)}"
        for run in runs
        for series in run.series
        for pairs, channel in [chosen_filters(series)]
        if pairs
    ]
    return _said(
        f"One filter of the first relaxed layer before and after training (as {PAPER}, Figs. 5 and 6): the weights of one output position, "
        "over the whole input of the layer, first input channel, first seed.",
        f"The output channel is the one whose weights off the receptive field grew most at the first switch ({', '.join(channels)}).",
        "Logarithms are natural; weights that are exactly zero are left out.",
    )


def parts(runs: Sequence[FinishedRun]) -> str:
    """Figure 7."""
    seen = []
    for run in runs:
        for series in run.series:
            gains = {}
            for switch, group in series.branches.items():
                full, local = (probed(group, "ablation", "end", f"accuracy_{part}") for part in ("full", "local"))
                if full is not None and local is not None:
                    gains[switch] = full.mean - local.mean
            if gains and any(gains.values()):
                most = max(gains, key=lambda switch: gains[switch])
                seen.append(f"{series.label(runs)}: the off-local weights add most for t_w = {most:g}, {gains[most]:+.1f} points.")
    return _said(
        f"Test accuracy of the trained network with only its local weights (receptive fields of the CNN) and with only its off-local ones "
        f"(as {PAPER}, Fig. 7); as a control, random masks that keep as many weights per row as the receptive field has.",
        _seeds(runs, "bars are one standard deviation over {n} seeds"),
        *seen,
    )


def weight_matrix(runs: Sequence[FinishedRun]) -> str:
    """Figure 8."""
    return _said(
        f"Corner of the first relaxed layer's weight matrix for the last switch, just after it and after training (as {PAPER}, Fig. 8), "
        "and histograms of all relaxed layers' weights after training. First seed.",
        "Outputs and inputs are positions in flattened maps; weights that are exactly zero are blank.",
    )


def accuracy_histories(runs: Sequence[FinishedRun]) -> str:
    """Figure 9."""
    return _said(
        f"The CNN's test accuracy while it trains (line) and, above every switch time, the test accuracies that the branch leaving there "
        f"goes through (crosses, coloured by epochs since the switch; as {PAPER}, Fig. 9).",
        _seeds(runs, "everything is a mean over {n} seeds"),
        *(f"{series.label(runs)}: {_range(series)}." for run in runs for series in run.series),
    )


def paths(runs: Sequence[FinishedRun]) -> str:
    """Figure 12."""
    from anarch_core.report.figures.interpolation import origin

    begin = {
        "projection": "the trained network's own projection onto the constraints",
        "parent": "the CNN it was lifted from",
        "reference": "the network at the switch",
    }.get(origin(runs) or "", "the network it is compared with")
    seen = []
    for run in runs:
        for series in run.series:
            barrier = [
                spread.mean for group in series.branches.values() if (spread := probed(group, "interpolation", "end", "linear_barrier"))
            ]
            if barrier:
                height = f"has a barrier of up to {max(barrier):.2g} nats" if max(barrier) > 1e-6 else "has no barrier at any switch time"
                seen.append(f"{series.label(runs)}: the straight path {height}.")
    return _said(
        f"Training loss and test accuracy on the way from {begin} (α = 0) to the trained relaxed network (α = 1) (as {PAPER}, Fig. 12).",
        "For curved paths α is the length travelled.",
        _seeds(runs, "bars are one standard deviation over {n} seeds"),
        *seen,
    )


def _range(series: Series) -> str:
    finals = {switch: spread for switch, group in series.branches.items() if (spread := score(group, "final", "test_accuracy"))}
    low, high = (choose(finals, key=lambda switch: finals[switch].mean) for choose in (min, max))
    text = f"final test accuracies lie between {percent(finals[low])} (t_w = {low:g}) and {percent(finals[high])} (t_w = {high:g})"
    for name, segments in (("the CNN", series.run.trunk), ("from scratch", series.scratch)):
        reached = score(segments, "final", "test_accuracy")
        text += f", {name} {percent(reached)}" if reached is not None else ""
    return text


def _sharper(runs: Sequence[FinishedRun], measured: Sequence[tuple[str, str]]) -> list[str]:
    said = []
    for probe, scalar in measured:
        name = {"gradient": "gradient norm", "hessian": "λ_max"}[probe]
        for run in runs:
            for series in run.series:
                starts = {switch: probed(group, probe, "start", scalar) for switch, group in series.branches.items()}
                known = {switch: spread.mean for switch, spread in starts.items() if spread is not None}
                if len(known) > 1:
                    most = max(known, key=lambda switch: known[switch])
                    said.append(f"{series.label(runs)}: at the switch the {name} is largest for t_w = {most:g} ({known[most]:.3g}).")
    return said


def _seeds(runs: Sequence[FinishedRun], text: str) -> str:
    counts = sorted({len({segment.seed for segment in run.results.segments}) for run in runs})
    if counts == [1]:
        return "One seed, so no error bars."
    return text.format(n=" or ".join(map(str, counts))).capitalize() + "."


def _said(*sentences: str) -> str:
    return together(" ".join(sentence for sentence in sentences if sentence))
