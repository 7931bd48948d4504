"""The probes of a run, at the start and the end of a segment: what they find goes into its notes, and a failing one stops nothing."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping

from torch import nn

from anarch_core.checkpoint.schema import KIND, PROBE_RESULT
from anarch_core.checkpoint.state import save_state
from anarch_core.errors import AnarchError, PluginError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Emit, Event, Job
from anarch_core.experiment.segment_result import Notes
from anarch_core.experiment.store import SegmentStore
from anarch_core.machine import give_back
from anarch_core.network import copied
from anarch_core.probe.base import ProbeContext
from anarch_core.probe.measuring import DisturbedError, measured, missing_needs
from anarch_core.segment.company import Company

TOLD_EVERY = 0.2
"""Seconds between two reports of a probe's progress."""


class Probing:
    """Runs the probes of a run on the networks of one segment.

    Args:
        context: of the run.
        job: the segment, and with which others it is compared.
        store: where arrays are kept.
        emit: told what is measured, and what failed.
    """

    def __init__(self, context: RunContext, job: Job, store: SegmentStore, emit: Emit) -> None:
        self._context, self._segment, self._store, self._emit = context, job.segment, store, emit
        self._company = Company(context, job)

    def between(self, notes: Notes, reference: nn.Module, parent: nn.Module | None) -> None:
        """Run all probes on the networks that were kept between the start of the segment and its end; arguments as of :meth:`measure`."""
        for moment in self._company.moments:
            file = self._store.snapshot(moment.iteration)
            if file.exists() and self._context.probes:  # training may have ended before
                model = copied(reference)
                model.load_state_dict(self._context.load(file, self._segment.seed).state_dict())
                self.measure(str(moment), notes, model.train(), reference, parent)

    def measure(self, moment: str, notes: Notes, model: nn.Module, reference: nn.Module | None, parent: nn.Module | None) -> None:
        """Run all probes; one that does not apply, fails or left something changed is noted, and the segment goes on.

        Args:
            moment: ``"start"``, ``"end"``, one between as ``"5ep"``, or ``"average"`` for the average of the weights.
            notes: written to.
            model: the network.
            reference: the network at the start of the segment.
            parent: the network it was lifted from.

        Raises:
            DisturbedError: a probe changed the network or the data, and they cannot be put back.
        """
        for name, probe in self._context.probes.items():
            try:
                others = {"reference": reference, "parent": parent, **self._company.companions(probe.needs, moment)}
                missing = missing_needs(probe, model, data=self._context.data, **others)
            except PluginError as error:
                self._note(name, moment, notes, f"failed: {error}")
                self._tell(name, moment, notes)
                continue
            if missing:
                notes.probe_notes.setdefault(name, {})[moment] = f"skipped: no {', '.join(missing)} here"
                self._tell(name, moment, notes)
                continue
            self._emit(Event("measuring", self._segment.id, name))
            context = ProbeContext(
                model=model,
                data=self._context.data,
                trajectory=functools.partial(self._company.trajectory, moment),
                seed=self._segment.seed,
                moment=moment,
                progress=self._telling(name),
            ).beside(others)
            disturbances: list[str] = []
            give_back()  # room for what this one takes
            try:
                found = measured(probe, context, tell=disturbances.append, reread=self._context.reread)
            except DisturbedError:
                raise  # training on would give something else
            except AnarchError as error:  # hours of training must not be lost to a probe
                self._note(name, moment, notes, f"failed: {error}")
                self._tell(name, moment, notes)
                continue
            if disturbances:
                self._note(name, moment, notes, disturbances[0])
            elif found.note:
                notes.probe_notes.setdefault(name, {})[moment] = found.note
                self._emit(Event("remark", self._segment.id, f"probe {name} {found.note}"))
            notes.probes.setdefault(name, {})[moment] = dict(found.scalars)
            self._tell(name, moment, notes, found.units)
            if found.details:
                notes.probe_details.setdefault(name, {})[moment] = dict(found.details)
            if found.tensors and self._store.writes:
                path = self._store.probe_tensors(name, moment)
                path.parent.mkdir(parents=True, exist_ok=True)
                save_state(path, found.tensors, {KIND: PROBE_RESULT})

    def _tell(self, probe: str, moment: str, notes: Notes, units: Mapping[str, str] | None = None) -> None:
        """Say what was found, or why nothing was."""
        values, note = notes.probes.get(probe, {}).get(moment, {}), notes.probe_notes.get(probe, {}).get(moment)
        told = {"probe": probe, "moment": moment, "values": dict(values), "units": dict(units or {}), "note": note}
        self._emit(Event("measured", self._segment.id, told))

    def _note(self, probe: str, moment: str, notes: Notes, text: str) -> None:
        notes.probe_notes.setdefault(probe, {})[moment] = text
        where = {"average": "on the average of", "start": "at the start of", "end": "at the end of"}.get(moment, f"{moment} into")
        self._emit(Event("warning", self._segment.id, f"probe {probe} {where} {self._segment.title}: {text}"))

    def _telling(self, probe: str) -> Callable[[int, int, str], None]:
        """What a probe calls while it measures: passes on at most five calls a second."""
        last = time.monotonic()

        def tell(done: int, total: int, what: str) -> None:
            nonlocal last
            if time.monotonic() - last >= TOLD_EVERY:
                last = time.monotonic()
                self._emit(Event("measuring", self._segment.id, f"{probe}: {what} {done}/{total}"))

        return tell
