"""The machines of a run by their kind, and what it means where there are several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from anarch_core.experiment.machines import Kind, Machine
from anarch_core.experiment.segment_result import SegmentResult


def by_kind(segments: Iterable[SegmentResult]) -> Mapping[Kind, Sequence[tuple[SegmentResult, Machine]]]:
    """Machines with the segments that they worked on, grouped by kind; nothing of segments that do not say."""
    found: dict[Kind, list[tuple[SegmentResult, Machine]]] = {}
    for segment in segments:
        for machine in segment.machines:
            found.setdefault(machine.kind, []).append((segment, machine))
    return found


def mixture(segments: Iterable[SegmentResult]) -> str | None:
    """A sentence on what it means that a run was trained on machines of several kinds; None where they were of one."""
    kinds = by_kind(segments)
    if len(kinds) < 2:
        return None
    tables = [dict(kind) for kind in kinds]
    names = [name for name in tables[0] if len({table[name] for table in tables}) > 1]
    told = [_told(name, [table[name] for table in tables]) for name in names]
    return (
        f"Machines of {len(kinds)} kinds worked on its segments ({'; '.join(told)}). They round differently: "
        "between them numbers can be compared, bytes cannot."
    )


_WORDS = {"cpu": "processor", "capability": "instructions", "gpu": "GPU", "torch": "torch", "threads": "threads"}


def _told(name: str, values: Sequence[Any]) -> str:
    return f"{_WORDS[name]}: {', '.join(dict.fromkeys('none' if value is None else str(value) for value in values))}"
