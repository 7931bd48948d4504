"""Trains one segment, from its start to its result file."""

from __future__ import annotations

import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import attrs
import torch
from torch import nn

from anarch_core import checkpoint
from anarch_core.api import OptimizerInfo
from anarch_core.config import RunConfig
from anarch_core.data import TensorData, load_data
from anarch_core.errors import AnarchError, InexactRelaxationWarning
from anarch_core.models import ModelSpec, model_spec
from anarch_core.moments import Moment
from anarch_core.optimizer_state import carry_optimizer_state
from anarch_core.options import parse_spec
from anarch_core.probe import AbstractProbe, ProbeContext
from anarch_core.registry import Registry
from anarch_core.relaxation_report import RelaxationReport
from anarch_core.relaxing import initialise_relaxed, project, relax
from anarch_core.schedule import AbstractSchedule
from anarch_core.segments import Segment, changed_options
from anarch_core.store import History, RunStore, SegmentStore, write_json
from anarch_core.training import (
    Score,
    Training,
    dtype_of,
    evaluate,
    is_milestone,
    load_optimizer_state,
    matmul_precision,
    optimizer_state,
)
from anarch_core.undisturbed import undisturbed

SAVE_EVERY = 20.0
"""Seconds of training that a killed run loses at most; more where saving is slow, so that it takes no more than a thirtieth of the time."""

STATE = "anarch.x.anarch.segment"


@attrs.frozen
class Event:
    """What a segment tells while it is trained.

    Attributes:
        kind: ``"started"``, ``"trained"`` (value: steps done, the last history row or None), ``"measuring"`` (value: what, in words),
            ``"snapshot"`` (value: iteration), ``"switch"`` (value: iteration the schedule chose), ``"warning"`` (value: text).
        segment: identity.
        value: as above.
    """

    kind: str
    segment: str
    value: Any = None


Emit = Callable[[Event], None]


@attrs.frozen(kw_only=True)
class Job:
    """A segment to be trained.

    Attributes:
        segment: which.
        keep: iterations at which others leave it, as far as known.
        keep_optimizer: whether they carry its optimizer state over.
    """

    segment: Segment
    keep: frozenset[int] = frozenset()
    keep_optimizer: bool = False


@attrs.define
class _Start:
    model: nn.Module
    parent: nn.Module | None = None
    report: RelaxationReport | None = None
    optimizer: torch.optim.Optimizer | None = None
    carried: dict[str, str] | None = None


class Executor:
    """Trains segments of one run, one after the other, on one device.

    Args:
        config: the run, complete, with ``device`` resolved.
        store: the run directory.
        registry: where components are looked up.
    """

    def __init__(self, config: RunConfig, store: RunStore, registry: Registry) -> None:
        self.config, self.store, self.registry = config, store, registry
        self.device = torch.device(config.device)
        model = config.model or ""
        self.data: TensorData = load_data(
            config.data,
            root=config.data_root,
            options=changed_options(config, registry, "dataset", config.data),
            limit=config.train_limit,
            validation=config.validation or None,
            registry=registry,
        ).to(self.device, dtype_of(config.precision))
        self.spec: ModelSpec = model_spec(
            model,
            input_shape=self.data.input_shape,
            classes=self.data.classes,
            options=changed_options(config, registry, "model", model),
            registry=registry,
        )
        self.probes: dict[str, AbstractProbe] = {name: create(registry, "probe", name, config) for name in config.probe}
        self.schedule: AbstractSchedule = create(registry, "schedule", config.switch, config)

    @property
    def iterations_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return -(-len(self.data.y_train) // self.config.batch_size)

    def build(self, seed: int) -> nn.Module:
        """The constrained network at its initialisation."""
        model = self.spec.build(seed=seed, registry=self.registry, trusted=True)
        return model.to(self.device, dtype_of(self.config.precision))

    def optimizer(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """A fresh optimizer: the place where an engine that fuses the update into layers would take their parameters over."""
        info = self.registry.find("optimizer", self.config.optimizer)
        options = self.registry.parse_options(info, changed_options(self.config, self.registry, "optimizer", self.config.optimizer))
        parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        network = (model,) if cast(OptimizerInfo, info).takes_model else ()
        optimizer: torch.optim.Optimizer = self.registry.target(info)(parameters, lr, options, *network)
        return optimizer

    def run(self, job: Job, emit: Emit, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """Train a segment from where it was left to its end.

        Args:
            job: the segment.
            emit: told what happens.
            stop: asked after every step; when true, the state is saved and None returned.

        Returns:
            the result, which is also in the segment's result file; None if stopped.
        """
        store = self.store.segment(job.segment.id)
        with store.lock(), matmul_precision(self.config.precision), _own_randomness(self.device):
            if store.done:
                return store.result()
            return _Execution(self, job, store, emit).run(stop)


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


class _Execution:
    """One segment under way."""

    def __init__(self, executor: Executor, job: Job, store: SegmentStore, emit: Emit) -> None:
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
        segment, settings = self.segment, self.segment.settings
        self.emit(Event("started", segment.id))
        clock = _SaveClock()
        start = self.start()
        model = start.model
        training = Training(
            model=model,
            optimizer=start.optimizer or self.optimizer(model),
            x=self.data.x_train,
            y=self.data.y_train,
            batch_size=settings.batch_size,
            seed=segment.seed,
            first_epoch=-(-segment.age // self.ipe),
            learning_rate=lambda iteration: settings.learning_rate.at(iteration, self.ipe),
            precision=settings.precision,
        )
        if self.store.resume_file.exists():
            history = self.resume(training)
        else:
            write_json(self.store.description, segment.describe())
            history = History(self.store.path / "history.jsonl", 0)
            self.begin(start, history)
        del start
        while True:
            diverged = next((row["epoch"] for row in history.rows[1:] if row["train_loss"] is None), None)
            if diverged is not None:
                break
            self.snapshot(training)
            if training.iteration >= settings.iterations:
                break
            goal = min([settings.iterations, *(kept for kept in self.keep if kept > training.iteration)])
            training.advance(goal, pause=lambda: clock.due() or stop())
            row = None
            if training.iteration % self.ipe == 0 or training.iteration >= settings.iterations:
                score = training.end_epoch()
                row = self.row(training, score, history)
                history.append(row)
                if math.isfinite(score.loss):
                    self.switch(training.iteration, history)
            self.emit(Event("trained", segment.id, (training.iteration, row)))
            if (stopped := stop()) or (clock.due() and training.iteration < settings.iterations):
                with clock.saving():
                    self.save(training, history, self.seconds + clock.elapsed())
            if stopped:
                history.close()
                return None
        history.close()
        return self.finish(training, history, diverged, self.seconds + clock.elapsed())

    def start(self) -> _Start:
        """The network this segment starts with: a function of the segment and its parent's snapshot alone."""
        torch.manual_seed(_seed_of(self.segment))
        transition = self.segment.transition
        start = self.inherited()
        if transition.action == "project":
            return _Start(project(start.model))
        if transition.action in ("relax", "scratch"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InexactRelaxationWarning)  # begin() says it, on the line of this segment
                relaxed = relax(
                    start.model,
                    transition.relaxation or "",
                    example_input=self.data.x_train[:2],
                    layers=transition.layers,
                    options=transition.options,
                    registry=self.registry,
                )
            if transition.action == "scratch":
                initialise_relaxed(relaxed.model)
                return _Start(relaxed.model)
            old, start = start.optimizer, _Start(relaxed.model, start.model, relaxed.report)
            if old is not None:
                start.optimizer = self.optimizer(relaxed.model)
                start.carried = carry_optimizer_state(relaxed, old, start.optimizer)
        return start

    def inherited(self) -> _Start:
        """The initialisation, or the parent's network; with the parent's optimizer state where it is carried over."""
        segment, device = self.segment, self.executor.device
        if segment.parent is None or segment.leaves is None:
            return _Start(self.executor.build(segment.seed))
        parent, iteration = self.executor.store.segment(segment.parent.id), segment.leaves.iteration
        base = self.executor.build(segment.seed) if self.executor.spec.is_import else None
        start = _Start(checkpoint.load(parent.snapshot(iteration), model=base, device=device, registry=self.registry))
        if segment.transition.optimizer_state == "carry":
            start.optimizer = self.optimizer(start.model)
            tensors, metadata = checkpoint.load_state(parent.optimizer_snapshot(iteration))
            load_optimizer_state(start.optimizer, tensors, json.loads(metadata[STATE]))
            start.carried = dict.fromkeys(dict(start.model.named_parameters()), "carried" if tensors else "empty")
        return start

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return self.executor.optimizer(model, self.segment.settings.learning_rate.base)

    def begin(self, start: _Start, history: History) -> None:
        """Measure the network as it starts."""
        report = start.report
        if report is not None:
            self.notes["exactness"] = _exactness(report)
            if not report.exact:
                text = f"{report.relaxation} differs from its parent by {report.error:.1e} (relative), more than {report.tolerance:.0e}"
                self.emit(Event("warning", self.segment.id, f"{self.segment.title}: {text}"))
        self.notes["optimizer_state"] = start.carried
        self.notes["start"] = scores = self.scores(start.model)
        history.append({"epoch": 0, **scores, **self.validation(start.model)})
        self.measure("start", start.model, None, start.parent)

    def scores(self, model: nn.Module) -> dict[str, float | None]:
        self.emit(Event("measuring", self.segment.id, "evaluating"))
        data = self.data
        return {**self.score("train", model, data.x_train, data.y_train), **self.score("test", model, data.x_test, data.y_test)}

    def score(self, part: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> dict[str, float | None]:
        score = evaluate(model, x, y, precision=self.segment.settings.precision)
        return {f"{part}_loss": _finite(score.loss), f"{part}_accuracy": score.accuracy}

    def validation(self, model: nn.Module) -> dict[str, float | None]:
        x, y = self.data.x_validation, self.data.y_validation
        return {} if x is None or y is None else self.score("validation", model, x, y)

    def row(self, training: Training, score: Score, history: History) -> dict[str, float | None]:
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
            **self.validation(training.model),
        }
        tests = 1 + sum("test_loss" in earlier for earlier in history.rows[1:])
        affordable = tests * len(self.data.y_test) <= 0.1 * 3 * len(self.data.y_train) * whole
        if training.iteration >= self.segment.settings.iterations or (rest == 0 and is_milestone(whole) and affordable):
            row.update(self.score("test", training.model, self.data.x_test, self.data.y_test))
        return row

    def switch(self, iteration: int, history: History) -> None:
        """Ask the schedule whether branches leave here."""
        rows = [{key: math.nan if value is None else value for key, value in row.items()} for row in history.rows[1:]]
        if self.segment.kind == "trunk" and self.executor.schedule.switches_now(rows):
            self.keep.add(iteration)
            self.notes["switches"].append(iteration)
            self.emit(Event("switch", self.segment.id, iteration))

    def snapshot(self, training: Training) -> None:
        iteration = training.iteration
        if iteration not in self.keep:
            return
        path = self.store.snapshot(iteration)
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.keep_optimizer:
            tensors, scalars = optimizer_state(training.optimizer)
            checkpoint.save_state(self.store.optimizer_snapshot(iteration), tensors, {STATE: json.dumps(scalars)})
        checkpoint.save(training.model, path, model_spec=self.executor.spec, moment=Moment(self.segment.age + iteration, self.ipe))
        self.emit(Event("snapshot", self.segment.id, iteration))

    def save(self, training: Training, history: History, seconds: float) -> None:
        """Save all that is needed to go on to the same bits."""
        tensors, state = training.state()
        metadata = {"training": state, "history": history.size(), "seconds": seconds, "notes": self.notes}
        checkpoint.save_state(self.store.resume_file, tensors, {STATE: json.dumps(metadata)})

    def resume(self, training: Training) -> History:
        """Go back to where the state was saved."""
        tensors, strings = checkpoint.load_state(self.store.resume_file)
        metadata = json.loads(strings[STATE])
        training.load_state(tensors, metadata["training"])
        self.notes, self.seconds = metadata["notes"], metadata["seconds"]
        self.keep.update(self.notes["switches"])
        for iteration in self.notes["switches"]:
            self.emit(Event("switch", self.segment.id, iteration))
        return History(self.store.path / "history.jsonl", metadata["history"])

    def measure(self, moment: str, model: nn.Module, reference: nn.Module | None, parent: nn.Module | None) -> None:
        """Run the probes; one that does not apply or fails is noted, and the segment goes on."""
        for name, probe in self.executor.probes.items():
            have = {"data": self.data, "reference": reference, "parent": parent, "relaxed": getattr(model, "anarch_relaxations", None)}
            missing = sorted(need for need in probe.needs if not have[need])
            if missing:
                self.notes["probe_notes"].setdefault(name, {})[moment] = f"skipped: no {', '.join(missing)} here"
                continue
            context = ProbeContext(model=model, data=self.data, reference=reference, parent=parent, seed=self.segment.seed, moment=moment)
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
                checkpoint.save_state(path, measurement.tensors, {"anarch.kind": "probe-result"})

    def telling(self, probe: str) -> Callable[[int, int, str], None]:
        """What a probe calls while it measures: passes on at most five calls a second."""
        self.emit(Event("measuring", self.segment.id, probe))
        last = time.monotonic()

        def tell(done: int, total: int, what: str) -> None:
            nonlocal last
            if time.monotonic() - last >= 0.2:
                last = time.monotonic()
                self.emit(Event("measuring", self.segment.id, f"{probe}: {what} {done}/{total}"))

        return tell

    def finish(self, training: Training, history: History, diverged: float | None, seconds: float) -> dict[str, Any]:
        """Measure the trained network and write it and the result, the result last."""
        model, segment = training.model, self.segment
        moment = Moment(segment.age + training.iteration, self.ipe)
        training.optimizer.zero_grad()
        checkpoint.save(model, self.store.final_file, model_spec=self.executor.spec, moment=moment)
        final = self.scores(model)
        if self.executor.probes:
            start = self.start()
            self.measure("end", model, start.model, start.parent)
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


def create(registry: Registry, kind: str, spec: str, config: RunConfig) -> Any:
    """A relaxation, probe or schedule with the options that the run gives it."""
    return registry.create(kind, parse_spec(spec)[0], changed_options(config, registry, kind, spec))


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def _seed_of(segment: Segment) -> int:
    """Seed of dropout and of fresh weights: other in each segment of a chain, the same in a branch and its control."""
    key = f"segment:{segment.seed}:{segment.age}".encode()
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1


def _epochs(iterations: int, per_epoch: int) -> int | float:
    return iterations / per_epoch if iterations % per_epoch else iterations // per_epoch


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
