"""What a run is going to train, in one line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from anarch_core.schedule import Moment

if TYPE_CHECKING:
    from anarch_core.experiment.segments import Segment

NAMED = 8
"""Sorts of segments that the line names, and moments of one sort."""

SEARCHING = "branches where the schedule finds a moment"
"""What else is coming while a schedule looks for moments."""


def coming(segments: Iterable[Segment], *, searching: bool = False) -> str:
    """What is to be trained: ``"coming: trunk; 2 branches of efcn at 0ep, 3ep; 2 continued; scratch efcn (6 segments, seed 0)"``.

    Args:
        segments: that have not ended.
        searching: whether a schedule may find moments for more of them.

    Returns:
        the line; empty if nothing is coming.
    """
    segments = list(segments)
    sorts: dict[tuple[int, str], set[Moment | None]] = {}
    for segment in segments:
        rank = ("trunk", "branch", "continued", "scratch").index(segment.kind)
        sorts.setdefault((rank, segment.relaxation or ""), set()).add(segment.switch)
    controlled = {moment for (rank, _), moments in sorts.items() if rank == 1 for moment in moments}
    parts = [_sort(*which, moments, controlled) for which, moments in sorted(sorts.items(), key=lambda item: item[0])]
    if len(parts) > NAMED:
        parts[NAMED:] = [f"{len(parts) - NAMED} more sorts"]
    parts += [SEARCHING] * searching
    if not parts:
        return ""
    seeds, orders = {segment.seed for segment in segments}, {segment.noise for segment in segments if segment.kind != "trunk"}
    counts = [_counted(len(segments), "segment", "segments")] if segments else []
    counts += [f"{len(seeds)} seeds" if len(seeds) > 1 else f"seed {seed}" for seed in sorted(seeds)[:1]]
    counts += [f"{len(orders)} orders of batches"] * (len(orders) > 1)
    return f"coming: {'; '.join(parts)}" + (f" ({', '.join(counts)})" if counts else "")


def _sort(rank: int, relaxation: str, moments: set[Moment | None], controlled: set[Moment | None]) -> str:
    """Of one kind and relaxation; the controls of branches that were named are counted alone."""
    if rank == 0:
        return "trunk"
    if rank == 3:
        return f"scratch {relaxation}"
    count = len(moments)
    if rank == 1:
        return f"{_counted(count, f'branch of {relaxation}', f'branches of {relaxation}')} at {_at(moments)}"
    return f"{count} continued" if moments <= controlled else f"{count} continued at {_at(moments)}"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _at(moments: Iterable[Moment | None]) -> str:
    texts = [str(moment) for moment in sorted(moment for moment in moments if moment is not None)]
    return ", ".join(texts if len(texts) <= NAMED else [*texts[: NAMED - 2], "…", texts[-1]])
