"""What a finished segment does not have of what it is asked for: snapshots that were not kept, probes that did not measure it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from anarch_core.config.run_config import RunConfig
from anarch_core.experiment.inventory import Inventory
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.segments import Segment
from anarch_core.experiment.tree import changed_options
from anarch_core.plugin.blame import answering
from anarch_core.plugin.registry import Registry
from anarch_core.probe.base import AbstractProbe
from anarch_core.schedule import AbstractSchedule, Moment

Asked = Mapping[str, Mapping[str, Any]]
"""By probe, what its numbers depend on beside the network: those of its options that differ from their defaults, and of a probe that
compares, as ``beside``, the identities of the segments that it is compared with."""


@attrs.frozen(kw_only=True)
class Owing:
    """What a finished segment does not have.

    Attributes:
        snapshots: iterations, ascending.
        probes: that did not measure it, or with other options.
        switches: where the schedule switches, if that is not what was noted, else None.
    """

    snapshots: tuple[int, ...] = ()
    probes: tuple[str, ...] = ()
    switches: Sequence[int] | None = None

    def __bool__(self) -> bool:
        """Whether anything is missing."""
        return bool(self.snapshots or self.probes) or self.switches is not None


def asked_probes(config: RunConfig, registry: Registry) -> Asked:
    """The probes of a run, with their options."""
    return {probe: changed_options(config, registry, "probe", probe) for probe in config.probe}


def compared(asked: Asked, probes: Mapping[str, AbstractProbe], companions: Mapping[str, Segment]) -> Asked:
    """What probes are asked of one segment, which has these companions."""
    beside = {name: {need: other.id for need, other in companions.items() if need in probes[name].needs} for name in asked}
    return {name: {**options, "beside": beside[name]} if beside[name] else options for name, options in asked.items()}


def owing(
    result: SegmentResult,
    left: Inventory,
    *,
    keep: Iterable[int],
    keep_optimizer: bool,
    probes: Asked,
    moments: Iterable[Moment] = (),
    schedule: AbstractSchedule,
) -> Owing:
    """What a finished segment does not have.

    Args:
        result: of the segment.
        left: what it noted of its files.
        keep: iterations at which others leave it.
        keep_optimizer: whether they carry its optimizer's state over.
        probes: that are to measure it.
        moments: between its start and its end, at which they are to.
        schedule: of the run.
    """
    known = left.probes
    if known is None:  # with which options is not known
        known = probes if {*probes} <= result.by_probe else {}
    switches = switches_found(schedule, result.history, result.iterations_per_epoch) if result.kind == "trunk" else list(result.switches)
    between = [moment for moment in moments if _reached(result, moment.iteration)]
    keep = {*keep, *(moment.iteration for moment in between if probes)}
    return Owing(
        snapshots=tuple(sorted(at for at in {*keep, *switches} if _reached(result, at) and not _kept(left, at, keep_optimizer))),
        probes=tuple(
            name for name, options in probes.items() if known.get(name) != options or not result.measured_at(name, map(str, between))
        ),
        switches=None if switches == list(result.switches) else switches,
    )


def with_probes(result: SegmentResult, names: Iterable[str], moments: Iterable[str] | None = None) -> SegmentResult:
    """The result with what these probes found, in their order, and nothing of others; between start and end at these moments, or at all."""
    names, wanted = list(names), None if moments is None else {*ALWAYS, *moments}
    taken: dict[str, Any] = {}
    for field in OF_PROBES:
        table = getattr(result, field)
        by_moment = {
            name: {at: told for at, told in table[name].items() if wanted is None or at in wanted} for name in names if name in table
        }
        taken[field] = {name: found for name, found in by_moment.items() if found}
    return attrs.evolve(result, **taken)


ALWAYS = ("start", "end", "average")
"""Moments at which probes measure whatever is asked."""

OF_PROBES = ("probes", "probe_details", "probe_notes")
"""Tables of a result that are by probe."""


def switches_found(schedule: AbstractSchedule, history: Sequence[Mapping[str, float | None]], iterations_per_epoch: int) -> list[int]:
    """The iterations at which a schedule switches during a trunk, asked once more; it is a function of the history.

    Args:
        schedule: of the run.
        history: the rows of the trunk so far, epoch 0 first.
        iterations_per_epoch: optimizer steps per epoch.
    """
    rows = shown(history)
    ask = answering(schedule.switches_now)
    return [
        round(row["epoch"] * iterations_per_epoch)
        for count, row in enumerate(rows, 1)
        if math.isfinite(row["train_loss"]) and ask(rows[:count])
    ]


def shown(history: Sequence[Mapping[str, float | None]]) -> list[dict[str, float]]:
    """What a schedule is given of a history, epoch 0 first: the rows of the epochs, nan for None, nothing of the test set."""
    return [{key: math.nan if value is None else value for key, value in row.items() if not key.startswith("test_")} for row in history[1:]]


def _reached(result: SegmentResult, iteration: int) -> bool:
    """Whether the segment came there, with a network that could be kept."""
    return iteration <= result.steps - result.iterations_per_epoch * result.diverged


def _kept(left: Inventory, iteration: int, optimizer: bool) -> bool:
    network = f"snapshots/{iteration}.safetensors" in left.files
    return network and (not optimizer or f"snapshots/{iteration}.optimizer.safetensors" in left.files)
