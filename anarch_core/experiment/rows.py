"""Results as rows of a table: one for each segment, or one for each of their epochs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from anarch_core.experiment.segment_result import SegmentResult

IDENTITY = ("id", "kind", "seed", "relaxation", "switch_epoch", "noise")
"""Columns that say which segment a row is of."""

_BESIDE = (
    "switch_iteration",
    "parent",
    "parent_iteration",
    "epochs",
    "iterations_per_epoch",
    "parameters",
    "ended",
    "diverged_epoch",
    "seconds",
)


def segment_rows(segments: Iterable[SegmentResult]) -> Iterator[Mapping[str, Any]]:
    """A row for each segment: identity, numbers, scores as ``final.test_loss``, scalars of probes as ``delta.end.shared``."""
    for segment in segments:
        table = segment.to_json()
        row = {name: table[name] for name in (*IDENTITY, *_BESIDE)}
        if segment.machines:
            row |= {"hosts": ", ".join(_each(machine.host for machine in segment.machines))}
            row |= {"machines": "; ".join(_each(map(str, segment.machines)))}
        for moment in ("start", "final", "average"):
            row |= {f"{moment}.{score}": value for score, value in (table[moment] or {}).items()}
        if segment.exactness is not None:
            row |= {"exactness.error": segment.exactness.error, "exactness.exact": segment.exactness.exact}
        for probe, moments in segment.probes.items():
            row |= {f"{probe}.{moment}.{name}": value for moment, scalars in moments.items() for name, value in scalars.items()}
        yield row


def _each(texts: Iterable[str]) -> Iterable[str]:
    """Every text once, in their order."""
    return dict.fromkeys(texts)


def history_rows(segments: Iterable[SegmentResult]) -> Iterator[Mapping[str, Any]]:
    """A row for each epoch of each segment: identity, then what its history has."""
    for segment in segments:
        identity = {name: getattr(segment, name) for name in IDENTITY}
        yield from ({**identity, **row} for row in segment.history)
