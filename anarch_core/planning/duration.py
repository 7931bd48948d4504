"""How long a run takes: its tree of segments on as many processes as it is given, each segment at the pace of its network."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Mapping, Sequence

from anarch_core.experiment.segments import Segment
from anarch_core.planning.order import longest_first

EVALUATION = 1 / 3
"""What a sample costs in an evaluation, of what it costs in training: a pass forward, without the two that gradients take."""


AS_GOOD = 0.01
"""Part of a time that is too little to count."""


def run_seconds(segments: Sequence[Segment], pace: Mapping[str, float], *, samples: Mapping[str, int], jobs: int) -> float:
    """Seconds from the first step to the last measurement of scores; probes are left out, and starting processes.

    Segments are taken as a run takes them: of those that can start, the first, where there are several processes the one that leads to the
    most; a branch can start when its parent has come to where it leaves.

    Args:
        segments: of the run, parents before their children.
        pace: seconds of an optimizer step by identity of the segment.
        samples: sizes of the parts of the data, ``"train"``, ``"test"`` and, if there is one, ``"validation"``.
        jobs: segments that are trained at once.
    """
    if jobs > 1:
        segments = longest_first(segments, lambda segment: pace[segment.id])
    free = [0.0] * jobs
    children: dict[str, list[int]] = {}
    coming: list[tuple[float, int]] = []  # when a segment can start, and its place
    for place, segment in enumerate(segments):
        if segment.parent is None or segment.leaves is None:
            coming.append((0.0, place))
        else:
            children.setdefault(segment.parent.id, []).append(place)
    ready: list[int] = []
    while coming or ready:
        now = heapq.heappop(free)
        while coming and coming[0][0] <= now:
            heapq.heappush(ready, heapq.heappop(coming)[1])
        if ready:
            chosen = segments[heapq.heappop(ready)]
        else:
            now, first = heapq.heappop(coming)
            chosen = segments[first]
        for place in children.get(chosen.id, ()):
            leaves = segments[place].leaves
            heapq.heappush(coming, (now + _reached(chosen, 0 if leaves is None else leaves.iteration, pace, samples), place))
        heapq.heappush(free, now + _reached(chosen, chosen.settings.iterations, pace, samples) + _scoring(chosen, pace, samples))
    return max(free)


def longest_way(segments: Sequence[Segment], pace: Mapping[str, float], *, samples: Mapping[str, int]) -> tuple[tuple[Segment, ...], float]:
    """The segments that a run has to train one after the other, and the seconds that it therefore takes on however many processes.

    Args:
        segments: of the run, at least one, parents before their children.
        pace: seconds of an optimizer step by identity of the segment.
        samples: sizes of the parts of the data.
    """
    starts: dict[str, float] = {}
    ends: dict[str, float] = {}
    for segment in segments:
        parent, leaves = segment.parent, segment.leaves
        waits = 0.0 if parent is None or leaves is None else starts[parent.id] + _reached(parent, leaves.iteration, pace, samples)
        starts[segment.id] = waits
        ends[segment.id] = waits + _reached(segment, segment.settings.iterations, pace, samples) + _scoring(segment, pace, samples)
    way = [max(segments, key=lambda segment: ends[segment.id])]
    while (parent := way[0].parent) is not None:
        way.insert(0, parent)
    return tuple(way), max(ends.values())


def by_jobs(segments: Sequence[Segment], pace: Mapping[str, float], *, samples: Mapping[str, int]) -> Mapping[int, float]:
    """Seconds of a run by how many segments are trained at once: one, two, four and so on, last as many as there is any use for.

    Args:
        segments: of the run, at least one, parents before their children.
        pace: seconds of an optimizer step by identity of the segment.
        samples: sizes of the parts of the data.
    """
    _, least = longest_way(segments, pace, samples=samples)
    found: dict[int, float] = {}

    def enough(jobs: int) -> bool:
        found[jobs] = run_seconds(segments, pace, samples=samples, jobs=jobs)
        return found[jobs] <= least * (1 + AS_GOOD)

    jobs = 1
    while not enough(jobs):
        jobs *= 2
    fewest = jobs // 2 + 1 + bisect.bisect_left(range(jobs // 2 + 1, jobs), True, key=enough)
    return {count: found[count] for count in sorted(found) if count < fewest and count & (count - 1) == 0} | {fewest: found[fewest]}


def _reached(segment: Segment, iteration: int, pace: Mapping[str, float], samples: Mapping[str, int]) -> float:
    """Seconds from a segment's start until it has taken so many steps: the scores at its start, and those of every epoch."""
    epochs = iteration * segment.settings.batch_size / samples["train"]
    validation = epochs * samples.get("validation", 0) * EVALUATION / segment.settings.batch_size
    return _scoring(segment, pace, samples) + (iteration + validation) * pace[segment.id]


def _scoring(segment: Segment, pace: Mapping[str, float], samples: Mapping[str, int]) -> float:
    """Seconds of evaluating a network on the training and the test set, as is done at the start and the end of a segment."""
    return (samples["train"] + samples["test"]) * EVALUATION / segment.settings.batch_size * pace[segment.id]
