"""Sentences about quantities: percentages, minus signs, and what is put together for captions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from anarch_core.objective import Metric
from anarch_core.plugin.records import CONSTRAINED_NETWORK
from anarch_core.report.evidence import FinishedRun, incomparable
from anarch_core.report.spread import FEWEST, Spread

_QUANTITY = re.compile(r"t_w = [\d.]+|[+\u2212]?[\d.]+( ± [\d.]+)? %|[+\u2212]?[\d.]+ ± [\d.]+")


def in_units(spread: Spread, metric: Metric) -> str:
    """A score: ``"88.8 %"`` or ``"88.8 ± 0.3 %"``."""
    text = f"{spread.mean:.{metric.digits}f}"
    text += f" ± {spread.deviation:.{metric.digits}f}" if spread.count > 1 else ""
    return f"{text} {metric.unit}".rstrip()


def difference(value: float, metric: Metric) -> str:
    """A difference of a score with its sign, in points for percent: ``"+1.9 points"``."""
    return f"{value:+.{metric.digits}f} {'points' if metric.unit == '%' else metric.unit}".rstrip()


def names(runs: Sequence[FinishedRun]) -> str:
    """How the scores of the runs are called: ``"accuracy"``, or ``"accuracy or R²"`` where they differ."""
    return " or ".join(dict.fromkeys(run.metric.label for run in runs))


def constrained(runs: Sequence[FinishedRun]) -> str:
    """What the networks that the runs relax are called together: ``"CNN"`` where each of them is one, else ``"constrained network"``."""
    found = {run.constrained for run in runs}
    return found.pop() if len(found) == 1 else CONSTRAINED_NETWORK


def together(text: str) -> str:
    """The text with a proper minus sign, and without line breaks inside of quantities and of the word t-interval."""
    return _QUANTITY.sub(lambda found: found[0].replace(" ", "\u00a0"), re.sub(r"(?<![\w.])-(?=\d)", "\u2212", text)).replace(
        "t-interval", "t\u2011interval"
    )


def sentences(*texts: str) -> str:
    """The texts that are not empty, as sentences for the page."""
    return together(" ".join(text for text in texts if text))


def over_seeds(runs: Sequence[FinishedRun], text: str, *, paired: bool = False) -> str:
    """The sentence ``text`` with its ``{n}`` replaced by how many seeds there are, or that there are too few for an interval.

    Args:
        runs: whose seeds.
        text: of the sentence.
        paired: of what is measured of a seed and the first one together, of which there is one less.
    """
    counts = sorted({len(run.seeds) - paired for run in runs})
    enough = [count for count in counts if count >= FEWEST]
    what = "pair" if paired else "seed"
    few = " or ".join(f"{_NUMBERS[count]} {what}{'s' * (count > 1)}{' of seeds' * paired}" for count in counts if count < FEWEST)
    if not enough:
        return f"{few.capitalize()}: too few for an interval, so no error bars."
    said = text.format(n=" or ".join(map(str, enough)))
    return f"{said[0].upper()}{said[1:]}{f'; none where there are {few}' if few else ''}."


_NUMBERS = {0: "no", 1: "one", 2: "two"}


def coordinates(runs: Sequence[FinishedRun], probes: Iterable[str]) -> str:
    """Why a plain gradient norm or largest eigenvalue is not compared between a network and its relaxation, and whether a shared one is."""
    found = [(series, any(incomparable(series, probe) for probe in probes)) for run in runs for series in run.series]
    alone = [series.label(runs) for series, apart in found if apart]
    network = constrained(runs)
    said = f"What is called shared is taken along the directions that the {network} has too"
    if len(alone) < len(found):
        weight = "convolution's weight stands" if network == "CNN" else "weight of it may stand"
        said += (
            f", in units in which a {network} and its relaxation are equal at the switch, and compares between networks; plain norms and "
            f"eigenvalues compare only within one network, as a {weight} for many weights of its relaxation, so that the units "
            "are others"
        )
    if not alone:
        return f"{said}."
    which = "" if len(alone) == len(found) else f", but for {', '.join(alone)}"
    return (
        f"{said}{which}. Weights were equal there, so that one number moved several of them: the {network}'s own numbers are in other "
        "units, and none of its norms and eigenvalues compares with one of the relaxed network."
    )
