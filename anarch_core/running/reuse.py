"""What a run that grows takes from its directory, what is new, and what is made of what is there: in a line or two."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from anarch_core.experiment.owing import Owing
from anarch_core.experiment.segments import Segment
from anarch_core.experiment.store import RunStore
from anarch_core.schedule import Clock, Moment

NAMED = 3
"""Segments that a line names."""


def reuse(
    store: RunStore, segments: Iterable[Segment], finished: Collection[str], owing: Mapping[str, Owing], clock: Clock, *, grows: bool
) -> Iterator[str]:
    """Lines for a directory that is asked for something else than before, or has not all that it is asked for.

    Args:
        store: the run directory.
        segments: of the run, as far as known.
        finished: identities of those that are there.
        owing: by identity, what finished ones do not have.
        clock: of the trunk.
        grows: whether the directory was asked for something else before.
    """
    segments = list(segments)
    asked = {segment.id for segment in segments}
    there = [segment for segment in segments if segment.id in finished]
    others = sum(path.parent.name not in asked for path in store.path.glob("segments/*/segment.json"))
    if grows:
        begun = sum(store.segment(segment.id).resume_file.exists() for segment in segments if segment.id not in finished)
        new = len(segments) - len(there) - begun
        parts = [f"{len(there)} of {len(segments)} segments are there", f"{new} to be trained"]
        parts += [f"{begun} to be finished"] * bool(begun)
        yield f"{store.path}: {', '.join(parts)}"
    for probe in dict.fromkeys(probe for missing in owing.values() for probe in missing.probes):
        count = sum(probe in missing.probes for missing in owing.values())
        yield f"{probe} measures {_counted(count, 'segment that is', 'segments that are')} there, without training"
    again = [(segment, owing[segment.id].snapshots) for segment in segments if segment.id in owing and owing[segment.id].snapshots]
    for segment, snapshots in again[:NAMED]:
        moments = _moments(segment, snapshots, clock)
        yield f"{segment.title} is trained again as far as it takes to have its network at {moments}, which was not kept"
    if len(again) > NAMED:
        yield f"and so are {len(again) - NAMED} more"
    if grows and others:
        yield f"{_counted(others, 'segment', 'segments')} of before not asked for now, kept for when asked for again"


def completed(segment: Segment, owed: Owing, clock: Clock) -> str:
    """What was made for a finished segment, in a few words."""
    parts = [f"its network at {_moments(segment, owed.snapshots, clock)} is kept"] * bool(owed.snapshots)
    parts += [f"measured by {', '.join(owed.probes)}"] * bool(owed.probes)
    return "; ".join(parts) or "asked where to switch"


def _moments(segment: Segment, iterations: Iterable[int], clock: Clock) -> str:
    return ", ".join(str(Moment(segment.age + iteration, clock.iterations_per_epoch)) for iteration in iterations)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
