"""Sentences about quantities: percentages, minus signs, and what is put together for captions."""

from __future__ import annotations

import re
from collections.abc import Sequence

from anarch_core.report.evidence import FinishedRun, Spread

_QUANTITY = re.compile(r"t_w = [\d.]+|[+\u2212]?[\d.]+( ± [\d.]+)? %|[+\u2212]?[\d.]+ ± [\d.]+")


def percent(spread: Spread) -> str:
    """``"88.8 %"`` or ``"88.8 ± 0.3 %"``."""
    return f"{spread.mean:.1f} %" if spread.count == 1 else f"{spread.mean:.1f} ± {spread.deviation:.1f} %"


def together(text: str) -> str:
    """The text with a proper minus sign, and without line breaks inside of quantities."""
    return _QUANTITY.sub(lambda found: found[0].replace(" ", "\u00a0"), re.sub(r"(?<![\w.])-(?=\d)", "\u2212", text))


def sentences(*texts: str) -> str:
    """The texts that are not empty, as sentences for the page."""
    return together(" ".join(text for text in texts if text))


def over_seeds(runs: Sequence[FinishedRun], text: str) -> str:
    """The sentence ``text`` with its ``{n}`` replaced by how many seeds there are, or that there is but one."""
    counts = sorted({len({segment.seed for segment in run.results.segments}) for run in runs})
    if counts == [1]:
        return "One seed, so no error bars."
    return text.format(n=" or ".join(map(str, counts))).capitalize() + "."
