"""How what a probe measured goes along a segment: at its start, at moments between and at its end."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.report.spread import Spread


def course(segments: Iterable[SegmentResult], probe: str, scalar: str) -> list[tuple[float, Spread]]:
    """(epochs since the segment's start, a probe's scalar over seeds) wherever it was measured, ascending.

    Where training ended early, its end is there.
    """
    values: dict[float, list[float]] = {}
    for segment in segments:
        places = {"start": 0.0, **segment.moments_between, "end": segment.steps / segment.iterations_per_epoch}
        for moment, epoch in places.items():
            value = segment.scalars(probe, moment).get(scalar)
            if value is not None:
                values.setdefault(epoch, []).append(value)
    found = ((epoch, Spread.of(values[epoch])) for epoch in sorted(values))
    return [(epoch, spread) for epoch, spread in found if spread is not None]


def measured_between(segments: Iterable[SegmentResult], probe: str) -> bool:
    """Whether a probe measured a segment at moments between its start and its end, as ``--probe-at`` has it."""
    return any(segment.scalars(probe, moment) for segment in segments for moment in segment.moments_between)
