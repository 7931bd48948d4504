"""Trains one segment, from its start to its result file."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
from torch import nn

from anarch_core.checkpoint import network as checkpoint
from anarch_core.checkpoint.schema import SEGMENT_STATE
from anarch_core.checkpoint.state import load_state, save_state
from anarch_core.experiment.condition import Condition, condition, started_from
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Emit, Event, Job
from anarch_core.experiment.inventory import Inventory, tensors_digest
from anarch_core.experiment.machines import joined_by
from anarch_core.experiment.owing import Asked, asked_probes, compared, shown, switches_found
from anarch_core.experiment.segment_result import DIVERGED, EPOCHS, Exactness, Notes, Scores, SegmentResult
from anarch_core.experiment.store import History, SegmentStore
from anarch_core.machine import give_back, own_randomness
from anarch_core.plugin.blame import answering
from anarch_core.relaxation.report import RelaxationReport
from anarch_core.schedule import Moment
from anarch_core.segment.completion import complete
from anarch_core.segment.optimizer_file import save_optimizer
from anarch_core.segment.probing import Probing
from anarch_core.segment.saving import AT_THE_END, SaveClock
from anarch_core.segment.scoring import Scoring
from anarch_core.segment.start import Start, start, training_from
from anarch_core.segment.stopping import Stop
from anarch_core.segment.waiting import Waiting
from anarch_core.segment.watching import Watching
from anarch_core.sharding.copies import align_copies
from anarch_core.sharding.shared_out import numbers, shards_of
from anarch_core.training.loop import Training
from anarch_core.training.penalty import idle_penalties
from anarch_core.training.precision import matmul_precision


def train_segment(context: RunContext, job: Job, emit: Emit, stop: Stop) -> SegmentResult | None:
    """Train a segment from where it was left to its end.

    Args:
        context: what all segments of the run share.
        job: the segment.
        emit: told what happens.
        stop: asked after every step; when true, the state is saved and None returned.

    Returns:
        the result, which is also in the segment's result file; None if stopped.

    Raises:
        Stopped: it was to stop where nothing had to be saved.
    """
    store = context.store.segment(job.segment.id)
    with (
        store.lock(Waiting(job.segment.title, lambda text: emit(Event("warning", job.segment.id, text)), stop)),
        matmul_precision(context.config.precision),
        own_randomness(context.device),
    ):
        there = context.by_first(lambda: _is_trained(context, job, store))
        if not there and Execution(context, job, store, emit, stop).run() is None:
            return None
        return complete(context, job, emit, stop)


def _is_trained(context: RunContext, job: Job, store: SegmentStore) -> bool:
    """Whether a segment is trained to its end; what belongs to another start is cleared away."""
    found = condition(store)
    if not started_from(found.left, context.store.snapshot_left(job.segment)):
        store.clear()
        found = Condition()
    return found.result is not None and not found.wrong


class Execution:
    """One segment under way."""

    def __init__(self, context: RunContext, job: Job, store: SegmentStore, emit: Emit, stop: Stop) -> None:
        self.context, self.job, self.store, self.emit, self.stop = context, job, store, emit, stop
        self.segment = job.segment
        self.keep, self.keep_optimizer = set(job.keep), job.keep_optimizer
        self.iterations_per_epoch = context.iterations_per_epoch
        self.scoring = Scoring(
            data=context.data,
            precision=job.segment.settings.precision,
            iterations_per_epoch=self.iterations_per_epoch,
            early_stopping=job.segment.settings.early_stopping,
        )
        self.probes = compared(asked_probes(context.config, context.registry), context.probes, job.companions)
        self.probing = Probing(context, job, store, emit)
        self.watching = Watching(context, job.segment, emit)
        self.seconds = 0.0
        self._opened = contextlib.ExitStack()
        self.notes = Notes(machines=[context.machine()])
        snapshot = context.store.snapshot_left(job.segment)
        self.parent = None if snapshot is None else tensors_digest(snapshot)

    def run(self) -> SegmentResult | None:
        """Train from where it was left; see :func:`train_segment`."""
        with self._opened:
            return self._run()

    def _run(self) -> SegmentResult | None:
        segment, settings = self.segment, self.segment.settings
        self.emit(Event("started", segment.id))
        clock = SaveClock()
        with self.stop.at_once():
            begun = start(self.context, segment)
        training = training_from(self.context, self.job, begun)
        if self.context.by_first(self.store.resume_file.exists):
            history = self._resume(training)
            self._tell_begun(training.iteration, history.rows)
            self.emit(Event("trained", segment.id, (training.iteration, None)))
        else:
            self.store.describe(segment.describe())
            self._compare(begun.report)
            self.store.drop(self.store.history_file)
            self._tell_begun(0, ())
            with self.stop.at_once():
                history = self._begin(begun)
        del begun
        give_back()
        while True:
            diverged = next((row["epoch"] for row in history.rows[1:] if row["train_loss"] is None), None)
            if diverged is None and training.iteration in self.keep and not _finite(training.model):
                diverged = self.scoring.epochs(training.iteration)  # in its last step, whose loss was taken before it
            if diverged is not None:
                break
            self._snapshot(training)
            if training.iteration >= settings.iterations or self.scoring.enough(history.rows) is not None:
                break
            goal = min([settings.iterations, *(kept for kept in self.keep if kept > training.iteration)])
            training.advance(goal, pause=lambda: self.context.agreed(clock.due() or self.stop()))
            self._note_capture(training)
            last = training.iteration >= settings.iterations
            row = None
            if training.iteration % self.iterations_per_epoch == 0 or last:
                score = training.end_epoch()
                self._align(training)
                row = self.scoring.row(training, score, history, last=last)
                if math.isfinite(score.loss):
                    epoch = training.iteration // self.iterations_per_epoch
                    # Where nothing is measured, a stop that came in the last step of the epoch finds its state saved, as after any other.
                    with self.stop.at_once() if self.watching.due(epoch) else contextlib.nullcontext():
                        row |= self.watching.columns(training.model, epoch)
                row = self.context.agreed(row)  # whose last digits may differ where kernels do not repeat theirs
                history.append(row)
                last = last or self.scoring.enough(history.rows) is not None
                if math.isfinite(score.loss):
                    self._switch(training.iteration, history)
            self.emit(Event("trained", segment.id, (training.iteration, row)))
            # Measuring the end may take long, and is not to cost the training before it.
            stopped, due = self.context.agreed((self.stop(), clock.due(AT_THE_END if last else None)))
            if stopped or due:
                with clock.saving():
                    self._save(training, history, self.seconds + clock.elapsed())
            if stopped:
                return None
        return self._finish(training, history, diverged, self.seconds + clock.elapsed())

    def _tell_begun(self, iteration: int, rows: Sequence[Mapping[str, float | None]]) -> None:
        """Say from where training goes on, and what there is by then."""
        past = {"iteration": iteration, "rows": tuple(map(dict, rows)), "notes": copy.deepcopy(self.notes)}
        self.emit(Event("begun", self.segment.id, past))

    def _compare(self, report: RelaxationReport | None) -> None:
        """Note how exactly the network is the one that it was lifted from."""
        if report is not None:
            self.notes = attrs.evolve(self.notes, exactness=Exactness.of(report))
            for text in [report.complaint, *report.notes]:
                if text:
                    self.emit(Event("warning", self.segment.id, f"{self.segment.title}: {text}"))

    def _begin(self, begun: Start) -> History:
        """Measure the network as it starts."""
        scores = self._scores(begun.model)
        self.notes = attrs.evolve(self.notes, optimizer_state=begun.carried, start=scores)
        row = {"epoch": 0, **scores, **self.scoring.validation(begun.model), **self.watching.columns(begun.model, 0)}
        history = self._history(0)
        history.append(row)
        self.emit(Event("scored", self.segment.id, dict(history.rows[0])))
        self.probing.measure("start", self.notes, begun.model, None, begun.parent)
        return history

    def _history(self, size: int) -> History:
        """The history as far as it counts, which is closed however the segment ends."""
        history = self.store.history(size)
        self._opened.callback(history.close)
        return history

    def _scores(self, model: nn.Module) -> Scores:
        self.emit(Event("measuring", self.segment.id, "evaluating"))
        return self.scoring.scores(model)

    def _switch(self, iteration: int, history: History) -> None:
        """Ask the schedule whether branches leave here."""
        if self.segment.kind != "trunk":
            return
        if answering(self.context.schedule.switches_now)(shown(history.rows)):
            self.keep.add(iteration)
            self.notes.switches.append(iteration)
            self.emit(Event("switch", self.segment.id, iteration))

    def _snapshot(self, training: Training) -> None:
        iteration = training.iteration
        if iteration not in self.keep:
            return
        path = self.store.snapshot(iteration)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.keep_optimizer:
            save_optimizer(training.optimizer, training.model, self.store.optimizer_snapshot(iteration), self.context.shards)
        self._write(training, path)
        self.emit(Event("snapshot", self.segment.id, iteration))

    def _note_capture(self, training: Training) -> None:
        """Note that steps were captured ones, or say why not."""
        if training.captured:
            self.notes.machines[-1] = attrs.evolve(self.notes.machines[-1], captured=True)
        if training.not_captured is not None:
            self.emit(Event("remark", self.segment.id, f"steps are not captured: {training.not_captured}"))

    def _write(self, training: Training, path: Path) -> None:
        """Write the network, with the moment on its own clock, which counts from its birth."""
        moment = Moment(self.segment.age + training.iteration, self.iterations_per_epoch)
        checkpoint.save(training.model, path, model_spec=self.context.spec, moment=moment, shards=self.context.shards)

    def _save(self, training: Training, history: History, seconds: float) -> None:
        """Save all that is needed to go on to the same bits."""
        self._align(training)
        tensors, state = training.state()
        metadata = {
            "segment": self.segment.id,
            "training": state,
            "history": history.size(),
            "seconds": seconds,
            "notes": self.notes.to_json(),
            **({"left": self._left(training.iteration).to_json()} if self.store.writes else {}),
        }
        strings = {SEGMENT_STATE: json.dumps(metadata)}
        save_state(self.store.resume_file, tensors, strings, cuts=training.cuts(), shards=self.context.shards)
        self.emit(Event("saved", self.segment.id))

    def _align(self, training: Training) -> None:
        """See that processes which train together have the same of what each of them has, where kernels do not repeat their digits."""
        if self.context.shards is not None and self.context.device.type == "cuda":
            align_copies(training.model, self.context.shards)

    def _left(self, until: int, *more: Path) -> Inventory:
        """What there is so far: the snapshots before step ``until`` and all else, the final network only if it is given."""
        tensors = [self.store.probe_tensors(probe, moment) for probe, moments in self.notes.probes.items() for moment in moments]
        taken = [iteration for iteration in self.keep if iteration < until]
        networks = [snapshot(iteration) for iteration in taken for snapshot in (self.store.snapshot, self.store.optimizer_snapshot)]
        return Inventory.of(
            self.store.path, [self.store.description, self.store.history_file, *networks, *tensors, *more], self.parent, self.probes
        )

    def _resume(self, training: Training) -> History:
        """Go back to where the state was saved."""
        tensors, strings = load_state(self.store.resume_file, cuts=training.cuts())
        metadata = json.loads(strings[SEGMENT_STATE])
        training.load_state(tensors, metadata["training"])
        noted, self.seconds = Notes.from_json(metadata["notes"], self.store.resume_file), metadata["seconds"]
        self.notes = attrs.evolve(noted, machines=joined_by(noted.machines, *self.notes.machines))
        history = self._history(metadata["history"])
        if self.segment.kind == "trunk":  # the schedule may be another one by now
            self.notes.switches[:] = switches_found(self.context.schedule, history.rows, self.iterations_per_epoch)
        self.keep.update(self.notes.switches)
        for iteration in self.notes.switches:
            self.emit(Event("switch", self.segment.id, iteration))
        self._measure_only(metadata["left"].get("probes") if "left" in metadata else None)
        return history

    def _measure_only(self, begun: Asked | None) -> None:
        """Go on with the probes that measured the start, with the options of then; others measure when the segment is done."""
        self.probes = {name: options for name, options in self.probes.items() if begun is not None and begun.get(name) == options}
        for table in (self.notes.probes, self.notes.probe_details, self.notes.probe_notes):
            for name in table.keys() - self.probes.keys():
                del table[name]
        self.probing = Probing(self.context.measuring(self.probes), self.job, self.store, self.emit)

    def _finish(self, training: Training, history: History, diverged: float | None, seconds: float) -> SegmentResult:
        """Measure the trained network and write it and the result, the result last."""
        model, segment = training.model, self.segment
        training.rest()
        training.optimizer.zero_grad()
        training.optimizer.state.clear()  # room for what measurements take
        self._write(training, self.store.final_file)
        with self.stop.at_once():
            final = self._scores(model)
        if diverged is None and final.train_loss is None:
            diverged = self.scoring.epochs(training.iteration)
        if self.probes:
            with self.stop.at_once():
                begun = start(self.context, segment)
                self.probing.between(self.notes, begun.model, begun.parent)
                self.probing.measure("end", self.notes, model, begun.model, begun.parent)
        else:
            begun = None
        for penalty in idle_penalties([name for name, _ in segment.settings.penalties], history.rows[1:]):
            text = f"penalty {penalty} added nothing to the loss of {segment.relaxation}, from its first step to its last"
            self.emit(Event("remark", segment.id, text))
        average = None if diverged is not None else self._average(training, begun)
        described = {field.name for field in attrs.fields(SegmentResult)}
        result = SegmentResult(
            **{name: value for name, value in segment.describe().items() if name in described},
            epochs=self.scoring.epochs(segment.settings.iterations),
            iterations_per_epoch=self.iterations_per_epoch,
            parameters=numbers(model),
            ended=self._ended(training, history, diverged),
            diverged_epoch=diverged,
            final=final,
            average=average,
            **attrs.asdict(self.notes, recurse=False),
            seconds=round(seconds, 3),
            history=history.rows,
        )
        if self.store.writes:
            self.store.finish(result, self._left(training.iteration + 1, self.store.final_file, self.store.average_file))
            self.store.resume_file.unlink(missing_ok=True)
        return result

    def _average(self, training: Training, begun: Start | None) -> Scores | None:
        """Measure the average of the weights, which takes the place of the trained network, and write it; None where none was taken."""
        with self.stop.at_once():
            if not training.take_average():
                return None
            model = training.model
            self._write(training, self.store.average_file)
            scores = self._scores(model)
            if begun is not None:
                self.probing.measure("average", self.notes, model, begun.model, begun.parent)
        return scores

    def _ended(self, training: Training, history: History, diverged: float | None) -> str:
        """Why training did."""
        if diverged is not None:
            return DIVERGED
        return EPOCHS if training.iteration >= self.segment.settings.iterations else f"stopped early: {self.scoring.enough(history.rows)}"


def _finite(model: nn.Module) -> bool:
    infinite = sum(not bool(parameter.isfinite().all()) for parameter in model.parameters())
    shards = shards_of(model)
    return not (infinite if shards is None else shards.totals([infinite])[0])
