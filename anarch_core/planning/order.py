"""In which order the segments of a run are handed to workers that train several at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from anarch_core.experiment.segments import Segment

if TYPE_CHECKING:
    from anarch_core.planning.footprint import Footprint

Cost = Callable[[Segment], float]
"""What a step of a segment costs beside one of another."""


def by_parameters(networks: Sequence[Footprint], segments: Sequence[Segment]) -> Cost:
    """A step costs as much as its network has parameters; one that is not known, which a schedule found, as much as the largest.

    Args:
        networks: of the run.
        segments: of the run.
    """
    known = {each.network: network.parameters for network in networks for each in segments if each.id in network.architecture.segments}
    largest = max(known.values(), default=1)
    return lambda segment: known.get(segment.network, largest)


def longest_first(segments: Sequence[Segment], cost: Cost) -> tuple[Segment, ...]:
    """Those first that lead to the most, so that what is trained last is short, and all workers end at about the same time.

    A segment leads to as much as the longest line of segments that begins with it; parents stay before their children.

    Args:
        segments: of a run, parents before their children.
        cost: of a step.
    """
    leads: dict[str, float] = {}
    for segment in reversed(segments):
        whole = segment.settings.iterations * cost(segment)
        leads[segment.id] = max(leads.get(segment.id, 0.0), whole)
        if segment.parent is not None:
            before = 0 if segment.leaves is None else segment.leaves.iteration
            through = before * cost(segment.parent) + leads[segment.id]
            leads[segment.parent.id] = max(leads.get(segment.parent.id, 0.0), through)
    return tuple(sorted(segments, key=lambda segment: -leads[segment.id]))
