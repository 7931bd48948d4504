"""On what the segments of a run were trained, where the report tells of its environment."""

from __future__ import annotations

from collections.abc import Iterator

from anarch_core.experiment.kinds import by_kind, mixture
from anarch_core.experiment.machines import COMPLETED, Machine
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.segments import title
from anarch_core.html import Html, paragraph, table
from anarch_core.report.evidence import FinishedRun

MOST = 12
"""Names that are told one by one."""


def trained_on(run: FinishedRun) -> str | None:
    """The kind of all machines, and which they were if not the one that the run was started on; None where that takes a table."""
    kinds = by_kind(run.results.segments)
    if len(kinds) != 1:
        return None
    machines = [machine for pairs in kinds.values() for _, machine in pairs]
    hosts = dict.fromkeys(machine.host for machine in machines)
    return str(machines[0]) if set(hosts) == {run.environment.get("host")} else f"{_some(hosts)}: {machines[0]}"


def machines_of(run: FinishedRun) -> Iterator[Html]:
    """A table of the kinds of machines with what they did, where there are several."""
    mixed = mixture(run.results.segments)
    if mixed is None:
        return
    rows = []
    for pairs in by_kind(run.results.segments).values():
        hosts = dict.fromkeys(machine.host for _, machine in pairs)
        segments = dict.fromkeys(_did(segment, machine) for segment, machine in pairs)
        rows.append([_some(hosts, 3), str(pairs[0][1]), _some(segments)])
    yield paragraph(mixed)
    yield table("Machines by kind", ["machines", "kind", "segments"], rows, texts=3, wrapped=True)


def _did(segment: SegmentResult, machine: Machine) -> str:
    switch = None if segment.switch_epoch is None else f"{segment.switch_epoch:g}ep"
    name = title(segment.kind, segment.relaxation, switch, segment.seed, segment.noise)
    if machine.did == COMPLETED:
        return f"{name} (completed)"
    return f"{name} (in part)" if len({one.kind for one in segment.machines if one.did != COMPLETED}) > 1 else name


def _some(names: dict[str, None], most: int = MOST) -> str:
    shown = list(names)[:most]
    more = len(names) - len(shown)
    return "; ".join([*shown, *([f"and {more} more"] if more else [])])
