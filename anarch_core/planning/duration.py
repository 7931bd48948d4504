"""How long a run takes: its tree of segments on as many processes as it is given, each segment at the pace of its network."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from anarch_core.experiment.segments import Segment

EVALUATION = 1 / 3
"""What a sample costs in an evaluation, of what it costs in training: a pass forward, without the two that gradients take."""


def run_seconds(segments: Sequence[Segment], pace: Mapping[str, float], *, samples: Mapping[str, int], jobs: int) -> float:
    """Seconds from the first step to the last measurement of scores; probes are left out, and starting processes.

    Segments are taken as a run takes them: of those that can start, the first; a branch can when its parent has come to where it leaves.

    Args:
        segments: of the run, parents before their children.
        pace: seconds of an optimizer step by identity of the segment.
        samples: sizes of the parts of the data, ``"train"``, ``"test"`` and, if there is one, ``"validation"``.
        jobs: segments that are trained at once.
    """
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


def _reached(segment: Segment, iteration: int, pace: Mapping[str, float], samples: Mapping[str, int]) -> float:
    """Seconds from a segment's start until it has taken so many steps: the scores at its start, and those of every epoch."""
    epochs = iteration * segment.settings.batch_size / samples["train"]
    validation = epochs * samples.get("validation", 0) * EVALUATION / segment.settings.batch_size
    return _scoring(segment, pace, samples) + (iteration + validation) * pace[segment.id]


def _scoring(segment: Segment, pace: Mapping[str, float], samples: Mapping[str, int]) -> float:
    """Seconds of evaluating a network on the training and the test set, as is done at the start and the end of a segment."""
    return (samples["train"] + samples["test"]) * EVALUATION / segment.settings.batch_size * pace[segment.id]
