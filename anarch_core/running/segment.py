"""Trains one segment, from its start to its result file."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from anarch_core.checkpoint import network as checkpoint
from anarch_core.checkpoint.schema import KIND, PROBE_RESULT, SEGMENT_STATE
from anarch_core.errors import AnarchError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Emit, Event, Job
from anarch_core.experiment.store import History, SegmentStore
from anarch_core.files import write_json
from anarch_core.network import undisturbed
from anarch_core.probe.base import ProbeContext
from anarch_core.relaxation.report import RelaxationReport
from anarch_core.running.start import Start, start
from anarch_core.schedule import Moment
from anarch_core.training import Score, Training, evaluate, matmul_precision, optimizer_state

SAVE_EVERY = 20.0
"""Seconds of training that a killed run loses at most; more where saving is slow, so that it takes no more than a thirtieth of the time."""


class _SaveClock:
    """Tells when to save."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._due = self._begun + SAVE_EVERY

    def elapsed(self) -> float:
        return time.monotonic() - self._begun

    def due(self) -> bool:
        return time.monotonic() >= self._due

    @contextmanager
    def saving(self) -> Iterator[None]:
        begun = time.monotonic()
        yield
        ended = time.monotonic()
        self._due = ended + max(SAVE_EVERY, 30 * (ended - begun))


class Execution:
    """One segment under way."""

    def __init__(self, executor: RunContext, job: Job, store: SegmentStore, emit: Emit) -> None:
        self.executor, self.segment, self.store, self.emit = executor, job.segment, store, emit
        self.config, self.data, self.registry = executor.config, executor.data, executor.registry
        self.keep, self.keep_optimizer = set(job.keep), job.keep_optimizer
        self.ipe = executor.iterations_per_epoch
        self.seconds = 0.0
        self.notes: dict[str, Any] = {
            "start": None,
            "exactness": None,
            "optimizer_state": None,
            "probes": {},
            "probe_details": {},
            "probe_notes": {},
            "switches": [],
        }

    def run(self, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """Train from where it was left; see :meth:`anarch_core.experiment.context.RunContext.run`."""
        segment, settings = self.segment, self.segment.settings
        self.emit(Event("started", segment.id))
        clock = _SaveClock()
        begun = start(self.executor, self.segment)
        model = begun.model
        training = Training(
            model=model,
            optimizer=begun.optimizer or self._optimizer(model),
            x=self.data.x_train,
            y=self.data.y_train,
            batch_size=settings.batch_size,
            seed=segment.seed,
            first_epoch=-(-segment.age // self.ipe),
            learning_rate=lambda iteration: settings.learning_rate.at(iteration, self.ipe),
            precision=settings.precision,
        )
        if self.store.resume_file.exists():
            history = self._resume(training)
        else:
            write_json(self.store.description, segment.describe())
            history = History(self.store.path / "history.jsonl", 0)
            self._begin(begun, history)
        del begun
        while True:
            diverged = next((row["epoch"] for row in history.rows[1:] if row["train_loss"] is None), None)
            if diverged is not None:
                break
            self._snapshot(training)
            if training.iteration >= settings.iterations:
                break
            goal = min([settings.iterations, *(kept for kept in self.keep if kept > training.iteration)])
            training.advance(goal, pause=lambda: clock.due() or stop())
            row = None
            if training.iteration % self.ipe == 0 or training.iteration >= settings.iterations:
                score = training.end_epoch()
                row = self._row(training, score, history)
                history.append(row)
                if math.isfinite(score.loss):
                    self._switch(training.iteration, history)
            self.emit(Event("trained", segment.id, (training.iteration, row)))
            if (stopped := stop()) or (clock.due() and training.iteration < settings.iterations):
                with clock.saving():
                    self._save(training, history, self.seconds + clock.elapsed())
            if stopped:
                history.close()
                return None
        history.close()
        return self._finish(training, history, diverged, self.seconds + clock.elapsed())

    def _optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.executor.optimizer(model, self.segment.settings.learning_rate.base)

    def _begin(self, begun: Start, history: History) -> None:
        """Measure the network as it starts."""
        report = begun.report
        if report is not None:
            self.notes["exactness"] = _exactness(report)
            if not report.exact:
                text = f"{report.relaxation} differs from its parent by {report.error:.1e} (relative), more than {report.tolerance:.0e}"
                self.emit(Event("warning", self.segment.id, f"{self.segment.title}: {text}"))
        self.notes["optimizer_state"] = begun.carried
        self.notes["start"] = scores = self._scores(begun.model)
        history.append({"epoch": 0, **scores, **self._validation(begun.model)})
        self._measure("start", begun.model, None, begun.parent)

    def _scores(self, model: nn.Module) -> dict[str, float | None]:
        self.emit(Event("measuring", self.segment.id, "evaluating"))
        data = self.data
        return {**self._score("train", model, data.x_train, data.y_train), **self._score("test", model, data.x_test, data.y_test)}

    def _score(self, part: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float | None]:
        score = evaluate(model, x, y, precision=self.segment.settings.precision)
        return {f"{part}_loss": _finite(score.loss), f"{part}_accuracy": score.accuracy}

    def _validation(self, model: nn.Module) -> dict[str, float | None]:
        x, y = self.data.x_validation, self.data.y_validation
        return {} if x is None or y is None else self._score("validation", model, x, y)

    def _row(self, training: Training, score: Score, history: History) -> dict[str, float | None]:
        """The history row of the epoch that just ended.

        Test accuracy is part of it at milestones, as far as all of that costs no more than a tenth of the training, in which a sample takes
        three times as long; and at the end.
        """
        whole, rest = divmod(training.iteration, self.ipe)
        row = {
            "epoch": _epochs(training.iteration, self.ipe),
            "train_loss": _finite(score.loss),
            "train_accuracy": score.accuracy,
            "learning_rate": training.optimizer.param_groups[0]["lr"],
            **self._validation(training.model),
        }
        tests = 1 + sum("test_loss" in earlier for earlier in history.rows[1:])
        affordable = tests * len(self.data.y_test) <= 0.1 * 3 * len(self.data.y_train) * whole
        if training.iteration >= self.segment.settings.iterations or (rest == 0 and is_milestone(whole) and affordable):
            row.update(self._score("test", training.model, self.data.x_test, self.data.y_test))
        return row

    def _switch(self, iteration: int, history: History) -> None:
        """Ask the schedule whether branches leave here."""
        rows = [{key: math.nan if value is None else value for key, value in row.items()} for row in history.rows[1:]]
        if self.segment.kind == "trunk" and self.executor.schedule.switches_now(rows):
            self.keep.add(iteration)
            self.notes["switches"].append(iteration)
            self.emit(Event("switch", self.segment.id, iteration))

    def _snapshot(self, training: Training) -> None:
        iteration = training.iteration
        if iteration not in self.keep:
            return
        path = self.store.snapshot(iteration)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.keep_optimizer:
            tensors, scalars = optimizer_state(training.optimizer)
            checkpoint.save_state(self.store.optimizer_snapshot(iteration), tensors, {SEGMENT_STATE: json.dumps(scalars)})
        checkpoint.save(training.model, path, model_spec=self.executor.spec, moment=Moment(self.segment.age + iteration, self.ipe))
        self.emit(Event("snapshot", self.segment.id, iteration))

    def _save(self, training: Training, history: History, seconds: float) -> None:
        """Save all that is needed to go on to the same bits."""
        tensors, state = training.state()
        metadata = {"training": state, "history": history.size(), "seconds": seconds, "notes": self.notes}
        checkpoint.save_state(self.store.resume_file, tensors, {SEGMENT_STATE: json.dumps(metadata)})

    def _resume(self, training: Training) -> History:
        """Go back to where the state was saved."""
        tensors, strings = checkpoint.load_state(self.store.resume_file)
        metadata = json.loads(strings[SEGMENT_STATE])
        training.load_state(tensors, metadata["training"])
        self.notes, self.seconds = metadata["notes"], metadata["seconds"]
        self.keep.update(self.notes["switches"])
        for iteration in self.notes["switches"]:
            self.emit(Event("switch", self.segment.id, iteration))
        return History(self.store.path / "history.jsonl", metadata["history"])

    def _measure(self, moment: str, model: nn.Module, reference: nn.Module | None, parent: nn.Module | None) -> None:
        """Run the probes; one that does not apply or fails is noted, and the segment goes on."""
        for name, probe in self.executor.probes.items():
            have = {"data": self.data, "reference": reference, "parent": parent, "relaxed": getattr(model, "anarch_relaxations", None)}
            missing = sorted(need for need in probe.needs if not have[need])
            if missing:
                self.notes["probe_notes"].setdefault(name, {})[moment] = f"skipped: no {', '.join(missing)} here"
                continue
            context = ProbeContext(
                model=model,
                data=self.data,
                reference=reference,
                parent=parent,
                seed=self.segment.seed,
                moment=moment,
                progress=self._telling(name),
            )
            try:
                with undisturbed(model):
                    measurement = probe.measure(context)
                scalars = {key: None if value is None else _finite(float(value)) for key, value in measurement.scalars.items()}
                details = json.loads(json.dumps(dict(measurement.details)), parse_constant=lambda _: None)
            except Exception as error:  # a plugin may raise anything; hours of training must not be lost to it
                text = str(error) if isinstance(error, AnarchError) else f"{type(error).__name__}: {error}"
                self.notes["probe_notes"].setdefault(name, {})[moment] = f"failed: {text}"
                self.emit(Event("warning", self.segment.id, f"probe {name} failed at the {moment} of {self.segment.title}: {text}"))
                continue
            self.notes["probes"].setdefault(name, {})[moment] = scalars
            if details:
                self.notes["probe_details"].setdefault(name, {})[moment] = details
            if measurement.tensors:
                path = self.store.probe_tensors(name, moment)
                path.parent.mkdir(parents=True, exist_ok=True)
                checkpoint.save_state(path, measurement.tensors, {KIND: PROBE_RESULT})

    def _telling(self, probe: str) -> Callable[[int, int, str], None]:
        """What a probe calls while it measures: passes on at most five calls a second."""
        self.emit(Event("measuring", self.segment.id, probe))
        last = time.monotonic()

        def tell(done: int, total: int, what: str) -> None:
            nonlocal last
            if time.monotonic() - last >= 0.2:
                last = time.monotonic()
                self.emit(Event("measuring", self.segment.id, f"{probe}: {what} {done}/{total}"))

        return tell

    def _finish(self, training: Training, history: History, diverged: float | None, seconds: float) -> dict[str, Any]:
        """Measure the trained network and write it and the result, the result last."""
        model, segment = training.model, self.segment
        moment = Moment(segment.age + training.iteration, self.ipe)
        training.optimizer.zero_grad()
        checkpoint.save(model, self.store.final_file, model_spec=self.executor.spec, moment=moment)
        final = self._scores(model)
        if self.executor.probes:
            begun = start(self.executor, self.segment)
            self._measure("end", model, begun.model, begun.parent)
        result = {
            **{key: value for key, value in segment.describe().items() if key not in ("settings", "task", "transition")},
            "epochs": _epochs(segment.settings.iterations, self.ipe),
            "iterations_per_epoch": self.ipe,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "diverged_epoch": diverged,
            "final": final,
            **self.notes,
            "seconds": round(seconds, 3),
            "history": history.rows,
        }
        write_json(self.store.result_file, result)
        self.store.resume_file.unlink(missing_ok=True)
        return result


def _exactness(report: RelaxationReport) -> dict[str, Any]:
    """JSON-ready: how exact a relaxation was, per layer and end to end."""
    layers = {layer.path: layer.error for layer in report.layers}
    return {"error": report.error, "tolerance": report.tolerance, "exact": report.exact, "dtype": report.dtype, "layers": layers}


def _epochs(iterations: int, per_epoch: int) -> int | float:
    return iterations / per_epoch if iterations % per_epoch else iterations // per_epoch


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def is_milestone(epoch: int) -> bool:
    """Whether test accuracy is taken after this epoch: 0, 1, 2, 3, 4, 6, 8, 10, 13, 18, 23, 30, ...

    Evenly spaced on a logarithmic axis, as the relax times of d'Ascoli et al. (2019): the floors of 150^(k/19), whatever the length of
    the stretch.
    """
    k = 0
    while (milestone := int(150 ** (k / 19) + 1e-9)) < epoch:
        k += 1
    return epoch == 0 or milestone == epoch


def train_segment(context: RunContext, job: Job, emit: Emit, stop: Callable[[], bool]) -> dict[str, Any] | None:
    """Train a segment from where it was left to its end.

    Args:
        context: what all segments of the run share.
        job: the segment.
        emit: told what happens.
        stop: asked after every step; when true, the state is saved and None returned.

    Returns:
        the result, which is also in the segment's result file; None if stopped.
    """
    store = context.store.segment(job.segment.id)
    with store.lock(), matmul_precision(context.config.precision), _own_randomness(context.device):
        if store.done:
            return store.result()
        return Execution(context, job, store, emit).run(stop)


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
