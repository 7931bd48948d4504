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
    begun: dict[str, float] = {}
    waiting = list(segments)
    while waiting:
        now = heapq.heappop(free)
        ready = {segment.id: _ready(segment, pace, samples, begun) for segment in waiting}
        chosen = min(waiting, key=lambda segment: max(now, ready[segment.id]))
        waiting.remove(chosen)
        begun[chosen.id] = max(now, ready[chosen.id])
        seconds = _reached(chosen, chosen.settings.iterations, pace, samples) + _scoring(chosen, pace, samples)
        heapq.heappush(free, begun[chosen.id] + seconds)
    return max(free)


def _ready(segment: Segment, pace: Mapping[str, float], samples: Mapping[str, int], begun: Mapping[str, float]) -> float:
    """When the network that a segment starts from exists; never, as far as is known, while that is not begun."""
    if segment.parent is None or segment.leaves is None:
        return 0.0
    if segment.parent.id not in begun:
        return float("inf")
    return begun[segment.parent.id] + _reached(segment.parent, segment.leaves.iteration, pace, samples)


def _reached(segment: Segment, iteration: int, pace: Mapping[str, float], samples: Mapping[str, int]) -> float:
    """Seconds from a segment's start until it has taken so many steps: the scores at its start, and those of every epoch."""
    epochs = iteration * segment.settings.batch_size / samples["train"]
    validation = epochs * samples.get("validation", 0) * EVALUATION / segment.settings.batch_size
    return _scoring(segment, pace, samples) + (iteration + validation) * pace[segment.id]


def _scoring(segment: Segment, pace: Mapping[str, float], samples: Mapping[str, int]) -> float:
    """Seconds of evaluating a network on the training and the test set, as is done at the start and the end of a segment."""
    return (samples["train"] + samples["test"]) * EVALUATION / segment.settings.batch_size * pace[segment.id]
