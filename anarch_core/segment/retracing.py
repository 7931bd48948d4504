"""A finished segment trained once more, as far as is needed for snapshots that were not kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from anarch_core.checkpoint import network as checkpoint
from anarch_core.checkpoint.schema import SEGMENT_STATE
from anarch_core.checkpoint.state import load_state, save_state
from anarch_core.errors import CheckpointError, RunError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Emit, Event, Job
from anarch_core.experiment.inventory import Inventory, damage, tensors_digest
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.files.replacing import replacing
from anarch_core.schedule import Moment
from anarch_core.segment.optimizer_file import load_optimizer, save_optimizer
from anarch_core.segment.saving import SaveClock
from anarch_core.segment.start import start, training_from
from anarch_core.segment.stopping import Stop
from anarch_core.training.loop import Training

REBUILT = ("model.", "optimizer.", "generator.", "running.", "gradients")
"""What a state of training is made of where a network's snapshot and its optimizer's are enough to go on to the same bits."""


class Retracing:
    """Trains from the nearest snapshot that allows it to the next one that is known, and believes what is between if that is the same.

    What is on the way is written aside, so that nobody starts from it, and a killed process goes on from where its state was saved.

    Args:
        context: what all segments of the run share.
        job: the segment, whose lock is held.
        result: of it.
        left: what it has left.
        missing: iterations of the snapshots, ascending, at least one.
        emit: told what happens.
        stop: asked after every step.
    """

    def __init__(
        self, context: RunContext, job: Job, result: SegmentResult, left: Inventory, missing: Sequence[int], emit: Emit, stop: Stop
    ) -> None:
        self.context, self.job, self.emit, self.stop = context, job, emit, stop
        self.files, self.left, self.missing = context.store.segment(job.segment.id), left, missing
        self.aside, self.machines = self.files.retraced, result.machines
        kept = [int(name.split("/")[1].split(".")[0]) for name in left.files if name.startswith("snapshots/")]
        self.known = {iteration: self.files.snapshot(iteration) for iteration in kept} | {result.steps: self.files.final_file}
        self.until = min(iteration for iteration in self.known if iteration >= missing[-1])

    def run(self) -> list[Path] | None:
        """The snapshots, in their place; None if stopped.

        Raises:
            RunError: it does not come to the weights that are known.
        """
        clock = SaveClock()
        with self.stop.at_once():
            training = self._begun()
        self.aside.snapshot(0).parent.mkdir(parents=True, exist_ok=True)
        begun = training.iteration
        while True:
            if training.iteration in self.missing:
                self._keep(training)
            if training.iteration in self.known and training.iteration > begun:
                self._compare(training, begun)
            if training.iteration >= self.until:
                return self.context.by_first(self._released)
            goal = min(iteration for iteration in (*self.missing, *self.known) if iteration > training.iteration)
            training.advance(goal, pause=lambda: self.context.agreed(clock.due() or self.stop()))
            if training.iteration % self.context.iterations_per_epoch == 0:
                training.end_epoch()
            self.emit(Event("trained", self.job.segment.id, (training.iteration, None)))
            stopped, due = self.context.agreed((self.stop(), clock.due()))
            if stopped or due:
                with clock.saving():
                    tensors, state = training.state()
                    strings = {SEGMENT_STATE: json.dumps(state)}
                    save_state(self.aside.resume_file, tensors, strings, cuts=training.cuts(), shards=self.context.shards)
                    self.emit(Event("saved", self.job.segment.id))
            if stopped:
                return None

    def _begun(self) -> Training:
        """Training where an earlier process saved it, else at the last snapshot from which it can go on, else at the start."""
        training = self._fresh()
        if self.context.by_first(self.aside.path.exists):
            if self._resumed(training):
                return training
            self.aside.remove()
        nearest = max(
            (iteration for iteration in self.known if iteration <= self.missing[0] and self._with_optimizer(iteration)), default=0
        )
        if not nearest or any(not name.startswith(REBUILT) for name in training.state()[0]):
            return training
        if _draws(training):
            return self._fresh()
        network = self.context.load(self.known[nearest], self.job.segment.seed)
        training.model.load_state_dict(network.state_dict())
        load_optimizer(training.optimizer, training.model, self.files.optimizer_snapshot(nearest))
        training.iteration = nearest
        return training

    def _fresh(self) -> Training:
        """At the first step; steps are captured as those were that are taken once more, which round alike."""
        captured = any(machine.captured for machine in self.machines)
        begun = start(self.context, self.job.segment)
        return training_from(self.context, self.job, begun, averaged=False, capture=self.context.config.capture if captured else "off")

    def _with_optimizer(self, iteration: int) -> bool:
        return f"snapshots/{iteration}.optimizer.safetensors" in self.left.files

    def _resumed(self, training: Training) -> bool:
        """Whether the training could be put to where it was saved, with all that is kept of the way there."""
        try:
            tensors, strings = load_state(self.aside.resume_file, cuts=training.cuts())
            state = json.loads(strings[SEGMENT_STATE])
        except CheckpointError:
            return False
        passed = [path for iteration in self.missing if iteration < state["iteration"] for path in self._snapshots(iteration)]
        if any(damage(self.aside.path / path, whole=True) for path in passed):
            return False
        training.load_state(tensors, state)
        return True

    def _snapshots(self, iteration: int) -> list[Path]:
        """Of the network, and of its optimizer where children carry its state over; below the segment's folder."""
        paths = [self.files.snapshot(iteration)] + [self.files.optimizer_snapshot(iteration)] * self.job.keep_optimizer
        return [path.relative_to(self.files.path) for path in paths]

    def _keep(self, training: Training) -> None:
        if self.job.keep_optimizer:
            path = self.aside.optimizer_snapshot(training.iteration)
            save_optimizer(training.optimizer, training.model, path, self.context.shards)
        self._save(training, self.aside.snapshot(training.iteration))

    def _save(self, training: Training, path: Path) -> None:
        moment = Moment(self.job.segment.age + training.iteration, self.context.iterations_per_epoch)
        checkpoint.save(training.model, path, model_spec=self.context.spec, moment=moment, shards=self.context.shards)

    def _compare(self, training: Training, begun: int) -> None:
        """Believe nothing of what was trained if it is not what was trained before."""
        self._save(training, self.aside.final_file)
        if self.context.by_first(lambda: tensors_digest(self.aside.final_file) == tensors_digest(self.known[training.iteration])):
            return
        self.aside.remove()
        first, last, *wanted = (Moment(steps, self.context.iterations_per_epoch) for steps in (begun, training.iteration, *self.missing))
        msg = (
            f"it was finished without its network at {', '.join(map(str, wanted))}, and trained again from {first} to {last} does not come "
            f"to the same weights: {self._why()}; what was there stays, choose another --out"
        )
        raise RunError(msg)

    def _why(self) -> str:
        """What rounds otherwise, as far as it is known."""
        here, before = self.context.machine(), self.machines[:1]
        if before and before[0].kind != here.kind:
            return f"it was trained on {before[0]}, and this is {here}, which rounds otherwise"
        return "this machine, its threads or its GPU round otherwise"

    def _released(self) -> list[Path]:
        """Copy what was kept to its place: until the result file names it, it is there twice or does not count."""
        made = []
        for name in (name for iteration in self.missing for name in self._snapshots(iteration)):
            path = self.files.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write((self.aside.path / name).read_bytes())
            made.append(path)
        return made


def _draws(training: Training) -> bool:
    """Whether the network draws random numbers while it is trained, whose state a snapshot does not hold."""
    before = training.state()[0]
    generators = {name: tensor.clone() for name, tensor in before.items() if name.startswith("generator.")}
    with torch.no_grad():
        training.model(training.x[: training.batch_size])
    return any(not torch.equal(tensor, training.state()[0][name]) for name, tensor in generators.items())
