"""The lines of the table that sums a run up: which segments share one, and what is known of those without a result."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import attrs

from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.objective import Metric

Place = tuple[int, str, float]
"""Of a line: the rank of its kind, the name of the network, and the epoch of the switch, -1 without one; lines ascend by it."""

KINDS = ("trunk", "scratch", "branch", "continued")
"""Of segments, by rank."""


def place(kind: str, relaxation: str | None, switch: float | None) -> Place:
    """The line that a segment belongs to; those of all seeds share it."""
    name = {"trunk": "trunk", "branch": relaxation or ""}.get(kind, f"{kind} {relaxation or ''}".rstrip())
    return KINDS.index(kind), name, -1.0 if switch is None else switch


@attrs.frozen(kw_only=True)
class Pending:
    """What is known of the segments of a line that have no result yet.

    Attributes:
        note: what is still missing, in a few words: ``"37 %"``, ``"coming"``.
        start: test score at their start, per seed; likewise below. They count only while no seed has a result.
        train: training score by now.
        test: test score by now.
    """

    note: str
    start: Sequence[float] = ()
    train: Sequence[float] = ()
    test: Sequence[float] = ()


NOTHING: Mapping[Place, Pending] = MappingProxyType({})


@attrs.frozen(kw_only=True)
class Row:
    """One line of the summary: the same segment with every seed.

    Attributes:
        place: in the table.
        name: ``"trunk"``, ``"efcn"``, ``"scratch efcn"``, ...
        switch: epoch of the switch, None where there is none.
        start: test score at the start, per seed.
        train: final training score, per seed.
        test: final test score, per seed.
        average: the same of the average of the weights; empty where none was taken.
        continued: the same of the control that went on without a switch, per seed; empty where there is none.
        probes: by (probe, scalar), the values at the end, per seed.
        failed: by probe, for how many seeds it failed at the end.
        diverged: how many seeds diverged.
        best: whether no branch has a better mean test score.
        note: what is still missing of it; empty in a run that is over.
        control_note: the same of its control.
    """

    place: Place
    name: str
    switch: float | None
    start: Sequence[float]
    train: Sequence[float]
    test: Sequence[float]
    average: Sequence[float] = ()
    continued: Sequence[float] = ()
    probes: Mapping[tuple[str, str], Sequence[float]] = attrs.field(factory=dict)
    failed: Mapping[str, int] = attrs.field(factory=dict)
    diverged: int = 0
    best: bool = False
    note: str = ""
    control_note: str = ""


def rows(
    segments: Iterable[SegmentResult], headlines: Mapping[str, Sequence[str]], metric: Metric, pending: Mapping[Place, Pending] = NOTHING
) -> list[Row]:
    """Segments as lines of the summary: trunk, scratch, then by relaxation and switch time; a control stands beside its branch.

    Args:
        segments: that have a result.
        headlines: by probe, its scalars.
        metric: the score.
        pending: what is known of those without one.
    """
    test = f"test_{metric.name}"
    groups: dict[Place, list[SegmentResult]] = {}
    for segment in _of_seeds(segments):
        groups.setdefault(place(segment.kind, segment.relaxation, segment.switch_epoch), []).append(segment)
    branches = {at for at in groups if KINDS[at[0]] == "branch"}
    branched = {switch for rank, _, switch in {**groups, **pending} if KINDS[rank] == "branch"}
    lines = []
    for at in sorted({**groups, **pending}):
        (rank, name, switch), group, others = at, groups.get(at, []), pending.get(at)
        if KINDS[rank] == "continued" and switch in branched:
            continue
        control = place("continued", None, switch)
        has_control = KINDS[rank] == "branch"
        early = None if group else others
        line = Row(
            place=at,
            name=name,
            switch=None if switch < 0 else switch,
            start=_values(group, "start", test) if early is None else early.start,
            train=_values(group, "final", f"train_{metric.name}") if early is None else early.train,
            test=_values(group, "final", test) if early is None else early.test,
            average=_values(group, "average", test),
            continued=_values(groups.get(control, []), "final", test) if has_control else [],
            probes={(probe, scalar): _probed(group, probe, scalar) for probe, scalars in headlines.items() for scalar in scalars},
            failed={probe: sum(segment.probe_failed(probe, "end") for segment in group) for probe in headlines},
            diverged=sum(segment.diverged for segment in group),
            note="" if others is None else others.note,
            control_note=pending[control].note if has_control and control in pending else "",
        )
        lines.append(line)
    means = {line.place: statistics.fmean(line.test) for line in lines if line.place in branches and line.test}
    best = (max if metric.higher_is_better else min)(means.values(), default=None)
    return [attrs.evolve(line, best=line.place in means and means[line.place] == best) for line in lines]


def _of_seeds(segments: Iterable[SegmentResult]) -> Iterator[SegmentResult]:
    """Those of the order of batches that the seed gives: one of another order is no further seed."""
    return (segment for segment in segments if not segment.noise)


def spread(values: Sequence[float], digits: int) -> str:
    """Mean, and the sample standard deviation where there are several: ``"88.8 ± 0.3"``."""
    if not values:
        return "–"
    mean = f"{statistics.fmean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def _values(group: Iterable[SegmentResult], part: str, key: str) -> list[float]:
    return [value for segment in group if (value := segment.score(part, key)) is not None and not segment.diverged]


def _probed(group: Iterable[SegmentResult], probe: str, scalar: str) -> list[float]:
    found = (segment.scalars(probe, "end").get(scalar) for segment in group)
    return [value for value in found if value is not None]
