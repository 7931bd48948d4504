"""A finished segment that is asked for more: it is not trained anew, what is missing is made from what it left."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
from torch import nn

from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Emit, Event, Job
from anarch_core.experiment.inventory import Inventory
from anarch_core.experiment.machines import COMPLETED, joined_by
from anarch_core.experiment.owing import OF_PROBES, Asked, asked_probes, compared, owing, with_probes
from anarch_core.experiment.segment_result import Notes, SegmentResult
from anarch_core.experiment.store import RunStore, SegmentStore
from anarch_core.machine import give_back
from anarch_core.segment.probing import Probing
from anarch_core.segment.retracing import Retracing
from anarch_core.segment.start import start
from anarch_core.segment.stopping import Stop


def complete(context: RunContext, job: Job, emit: Emit, stop: Stop) -> SegmentResult | None:
    """Make what a finished segment does not have of what it is asked for; see :func:`~anarch_core.experiment.owing.owing`.

    Whenever the process is killed, its result file says what is there, and the rest is made by the next one.

    Args:
        context: what all segments of the run share.
        job: the segment, whose lock is held.
        emit: told what happens.
        stop: asked after every step.

    Returns:
        the result; None if stopped.

    Raises:
        RunError: trained again, it does not come to the same weights.
        Stopped: it was to stop while it was measured.
    """
    files = context.store.segment(job.segment.id)
    result, left = context.by_first(lambda: _there(context.store, files))
    asked = compared(asked_probes(context.config, context.registry), context.probes, job.companions)
    missing = owing(
        result,
        left,
        keep=job.keep,
        keep_optimizer=job.keep_optimizer,
        probes=asked,
        moments=context.probe_moments(job.segment),
        schedule=context.schedule,
    )
    if not missing:
        return result
    emit(Event("started", job.segment.id))
    if missing.snapshots:
        emit(Event("trained", job.segment.id, (0, None)))
        made = Retracing(context, job, result, left, missing.snapshots, emit, stop).run()
        if made is None:
            return None
        left = left.with_files(made, files.path)
    if missing.switches is not None:
        result = attrs.evolve(result, switches=missing.switches)
    if missing.snapshots or missing.probes:
        result = attrs.evolve(result, machines=joined_by(result.machines, context.machine(COMPLETED)))
    files.finish(result, left)
    emit(Event("saved", job.segment.id))
    files.retraced.remove()
    if missing.probes:
        with stop.at_once():
            result = _measure(context, job, result, left, {name: asked[name] for name in missing.probes}, emit)
    return result


def _there(store: RunStore, files: SegmentStore) -> tuple[SegmentResult, Inventory]:
    """What came out of a segment, and what it left; only who may be about to write both looks."""
    result, noted = files.finished()
    return result, store.stock(result, noted)


def _measure(context: RunContext, job: Job, result: SegmentResult, left: Inventory, probes: Asked, emit: Emit) -> SegmentResult:
    """Have probes measure the networks that the segment started and ended with and its average, one after the other."""
    files, segment = context.store.segment(job.segment.id), job.segment
    known: Asked = {name: options for name, options in (left.probes or {}).items() if name not in probes}
    result = with_probes(result, known)
    measured = _tensors(files, probes)
    left = attrs.evolve(left.without_files(measured, files.path), probes=known)
    files.finish(result, left)  # numbers of other options are gone before their files are
    emit(Event("saved", segment.id))
    files.drop(*measured)
    begun, model = start(context, segment), _trained(context, job, files.final_file)
    average = None if result.average is None else _trained(context, job, files.average_file)
    give_back()
    for name, options in probes.items():
        notes, probing = Notes(), Probing(context.measuring([name]), job, files, emit)
        probing.measure("start", notes, begun.model, None, begun.parent)
        probing.between(notes, begun.model, begun.parent)
        probing.measure("end", notes, model, begun.model, begun.parent)
        if average is not None:
            probing.measure("average", notes, average, begun.model, begun.parent)
        known = {**known, name: options}
        known = {probe: known[probe] for probe in dict.fromkeys([*context.config.probe, *known]) if probe in known}
        found: dict[str, Any] = {field: {**getattr(result, field), **getattr(notes, field)} for field in OF_PROBES}
        result = with_probes(attrs.evolve(result, **found), known)
        left = attrs.evolve(left.with_files(_tensors(files, notes.probes), files.path), probes=known)
        files.finish(result, left)
        emit(Event("saved", segment.id))
    return result


def _tensors(files: SegmentStore, probes: Iterable[str]) -> list[Path]:
    return [path for probe in probes for path in sorted(files.path.glob(f"probes/{glob.escape(probe)}-*.safetensors"))]


def _trained(context: RunContext, job: Job, file: Path) -> nn.Module:
    """The network a segment ended with, or its average, built as in training, so that numbers are rounded alike."""
    model = start(context, job.segment).model
    model.load_state_dict(context.load(file, job.segment.seed).state_dict())
    return model.train()
