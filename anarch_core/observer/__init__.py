"""What a run tells while it goes on, and the interface of those who are told: observers."""

from __future__ import annotations

from anarch_core.observer.base import AbstractObserver
from anarch_core.observer.events import (
    EpochDone,
    Event,
    Measured,
    RunBegun,
    RunFinished,
    SegmentEvent,
    SegmentFailed,
    SegmentFinished,
    SegmentNode,
    SegmentSkipped,
    SegmentsPlanned,
    SegmentStarted,
    SwitchFound,
    Warned,
    flattened,
)

__all__ = [
    "AbstractObserver",
    "EpochDone",
    "Event",
    "Measured",
    "RunBegun",
    "RunFinished",
    "SegmentEvent",
    "SegmentFailed",
    "SegmentFinished",
    "SegmentNode",
    "SegmentSkipped",
    "SegmentStarted",
    "SegmentsPlanned",
    "SwitchFound",
    "Warned",
    "flattened",
]
