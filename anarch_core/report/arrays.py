"""What of many branches is drawn by itself: arrays that a probe kept, for a few switch times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from anarch_core.report.evidence import FinishedRun, NothingToDrawError, Series, all_series, require_probes, some

if TYPE_CHECKING:
    import numpy as np


@attrs.frozen(kw_only=True)
class Pictured:
    """One switch time of one relaxation, for a panel or a row of them.

    Attributes:
        series: what it is a branch of.
        title: the switch time, with the relaxation where there are several.
        arrays: those of the trained branch by name, one for each seed.
    """

    series: Series
    title: str
    arrays: Mapping[str, Sequence[np.ndarray[Any, Any]]]


def pictured(runs: Sequence[FinishedRun], probe: str) -> list[Pictured]:
    """Four switch times, or two of every relaxation where there are several, of which a probe kept arrays.

    Raises:
        NothingToDrawError: the probe was not run, or kept none.
    """
    require_probes(runs, probe)
    every = all_series(runs)
    found = [
        (series, switch, arrays)
        for series in every
        for switch in some(list(series.branches), 4 if len(every) == 1 else 2)
        if (arrays := _arrays(series, switch, probe))
    ]
    if not found:
        msg = f"the branches of these runs have no arrays of the probe {probe}; run again with --probe {probe}"
        raise NothingToDrawError(msg)
    several = len({(series.run.label, series.relaxation) for series, _, _ in found}) > 1
    return [
        Pictured(series=series, title=f"{series.label(runs) + ', ' if several else ''}$t_w$ = {switch:g}", arrays=arrays)
        for series, switch, arrays in found
    ]


def _arrays(series: Series, switch: float, probe: str) -> dict[str, list[np.ndarray[Any, Any]]]:
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for segment in series.branches[switch]:
        for name, array in series.run.tensors(segment, probe, "end").items():
            found.setdefault(name, []).append(array)
    return found
