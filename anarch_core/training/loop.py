"""The one loop: minibatch gradient descent on data held as tensors, resumable after any step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from typing import Any, cast

import attrs
import torch
from torch import nn

from anarch_core.augmentation import Augmenting
from anarch_core.config.values import Capture, Precision
from anarch_core.data.order import batches_per_epoch, epoch_order
from anarch_core.data.stored import Inputs, Stored, batches
from anarch_core.errors import CheckpointError
from anarch_core.objective.base import AbstractObjective
from anarch_core.objective.classification import CrossEntropy
from anarch_core.objective.outputs import fitting, outputs_of
from anarch_core.ops.fused import Norms, Whole, add_the_rest, clip_norm, fused_sgd, has_descended, has_gradients
from anarch_core.ops.memory_format import channels_last, takes_channels_last
from anarch_core.plugin.blame import on_behalf_of, origin
from anarch_core.sharding.cut import Cut
from anarch_core.sharding.shared_out import cuts_of, shards_of
from anarch_core.training.averages import PREFIX as AVERAGE
from anarch_core.training.averages import RunningAverage, statistics_anew
from anarch_core.training.captured import Captured
from anarch_core.training.chained import Chained
from anarch_core.training.evaluation import Score, Tally
from anarch_core.training.graphs import graphs_on
from anarch_core.training.norms import joined_norms
from anarch_core.training.optimizer_state import load_optimizer_state, optimizer_cuts, optimizer_state
from anarch_core.training.penalty import Penalties
from anarch_core.training.precision import autocast
from anarch_core.training.trial import LIKE, MODEL


@attrs.define(kw_only=True)
class Training:
    """A stretch of training under way.

    The order of batches is a function of (seed, epoch), where ``epoch`` counts from the network's birth: a branch goes on with the order
    its parent would have met. Nothing waits for the device inside an epoch.

    Attributes:
        model: the network, trained in place.
        optimizer: holds the model's parameters.
        x: training inputs [n, channels, *spatial] on the model's device, or read to it a batch at a time.
        y: training targets [n, ...].
        batch_size: samples per step; the last batch of an epoch may be smaller.
        seed: of the batch order.
        first_epoch: epochs the network was trained before this stretch.
        learning_rate: learning rate of a step, counted from the start of the stretch.
        precision: see :func:`dtype_of` and :func:`matmul_precision`.
        augment: what is done to the inputs of a batch before the network is given them, if anything.
        objective: whose loss is lowered.
        clip_norm: largest 2-norm of a step's gradient over all parameters that are trained, as :func:`torch.nn.utils.clip_grad_norm_` has
            it; None for any.
        penalties: terms beside the loss, for relaxed layers; None without any. Their gradients are part of a step's gradient, their values
            not of the loss that is told.
        average: of the weights, kept up while they are trained; None without one.
        follow_gradient: whether to take the norm of every step's gradient.
        chained: whether small layers are taken as chains, see :class:`~anarch_core.training.chained.Chained`.
        capture: whether steps are captured on a device that can: ``"auto"`` where they do as ordinary ones, ``"on"`` or else fail,
            ``"off"``; see :class:`~anarch_core.training.captured.Captured`.
        iteration: steps done.
        gradient_norm: mean over the steps of the epoch that ended last of the 2-norm of the step's gradient over all parameters, before it
            is clipped; None where it is not followed.
        penalised: what the history says of the penalties in the epoch that ended last, by column.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    x: Inputs
    y: torch.Tensor
    batch_size: int
    seed: int
    learning_rate: Callable[[int], float]
    first_epoch: int = 0
    precision: Precision = "float32"
    augment: Augmenting | None = None
    objective: AbstractObjective = attrs.field(factory=CrossEntropy)
    clip_norm: float | None = None
    penalties: Penalties | None = None
    average: RunningAverage | None = None
    follow_gradient: bool = False
    chained: bool = False
    capture: Capture = "off"
    iteration: int = 0
    gradient_norm: float | None = attrs.field(init=False, default=None)
    penalised: dict[str, float] = attrs.field(init=False, factory=dict)
    _gradients: torch.Tensor = attrs.field(init=False)
    _tally: Tally = attrs.field(init=False)
    _channels_last: bool = attrs.field(init=False)
    _chains: Chained | None = attrs.field(init=False)
    _captured: Captured | None = attrs.field(init=False)
    _joined: Callable[[Norms], torch.Tensor] | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._channels_last = takes_channels_last(self.model, self.x[:2])
        self._chains = Chained(self.model) if self.chained else None
        self._joined = joined_norms(self.model)
        self.model.train()
        self._tally = Tally.empty(self.objective, self.x.device)
        self._gradients = torch.zeros((), dtype=torch.float64, device=self.x.device)
        self._captured = self._capturing()

    def _capturing(self) -> Captured | None:
        """What takes steps that were captured; None where that is not wanted, or nothing can."""
        graphs = None if self.capture == "off" else graphs_on(self.x.device)
        if graphs is None:
            return None
        return Captured(
            graphs=graphs,
            step=self._step,
            model=self.model,
            optimizer=self.optimizer,
            live=self._changing,
            host=lambda: optimizer_state(self.optimizer)[1],
            like=LIKE[self.precision],
            samples=len(self.y),
            hindrance=self._hindrance(),
            must=self.capture == "on",
        )

    def _hindrance(self) -> str | None:
        """What of this training no captured step could do, if anything."""
        if self.penalties:
            return "penalties are functions of the step, which the host computes"
        return "several processes train the network together" if shards_of(self.model) is not None else None

    @property
    def iterations_per_epoch(self) -> int:
        """Steps per epoch."""
        return batches_per_epoch(len(self.y), self.batch_size)

    @property
    def chains(self) -> int:
        """How many chains the network has been taken in so far."""
        return 0 if self._chains is None else len(self._chains.chains())

    @property
    def captured(self) -> int:
        """How many steps were captured ones."""
        return 0 if self._captured is None else self._captured.replayed

    @property
    def not_captured(self) -> str | None:
        """Why no step is captured any more, though that was asked for; None where there is no reason, or none is known yet."""
        return None if self._captured is None else self._captured.refused

    def rest(self) -> None:
        """Give back memory that steps keep for the next one, which takes it again."""
        if self._captured is not None:
            self._captured.drop()

    def advance(self, until: int, pause: Callable[[], bool] = lambda: False) -> None:
        """Take steps until ``until`` of them are done in all, the epoch ends, or ``pause`` says so (asked after every step)."""
        epoch, done = divmod(self.iteration, self.iterations_per_epoch)
        if self._captured is not None:
            self._captured.look()
        rate = None
        read = self._batches(self.first_epoch + epoch, done, done + until - self.iteration)
        with contextlib.closing(read), contextlib.nullcontext() if self._chains is None else self._chains.taken():
            for rows, inputs in read:
                if (wanted := self.learning_rate(self.iteration)) != rate:
                    rate = wanted
                    for group in self.optimizer.param_groups:
                        group["lr"] = rate * group.get("lr_scale", 1.0)
                # The first step makes what an optimizer remembers, and sums that are kept: a step of its own kind.
                if self._captured is None or not self.iteration or not self._captured.take(rows, inputs):
                    self._step(rows, inputs)
                self.iteration += 1
                if self.average is not None:
                    self.average.after_step(self.iteration)
                if pause():
                    break

    def _batches(self, epoch: int, first: int = 0, last: int | None = None) -> Generator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Some batches of an epoch of the network's life: their rows, and their inputs where :meth:`_given` cannot gather them by these."""
        order = epoch_order(len(self.y), self.seed, epoch)
        there = torch.split(order.to(self.x.device), self.batch_size)[first:last]
        if self.augment is None and isinstance(self.x, torch.Tensor):
            yield from ((rows, None) for rows in there)
            return
        wanted = torch.split(order, self.batch_size)[first:last] if isinstance(self.x, Stored) else there
        with contextlib.closing(batches(self.x, wanted)) as read:
            for rows, inputs in zip(there, read, strict=True):
                yield rows, inputs if self.augment is None else self.augment(inputs, rows, epoch)

    def _given(self, rows: torch.Tensor, inputs: torch.Tensor | None) -> torch.Tensor:
        """The inputs of a batch as the network is given them."""
        if inputs is None:
            inputs = cast(torch.Tensor, self.x).index_select(0, rows)
        return channels_last(inputs) if self._channels_last else inputs

    def _step(self, rows: torch.Tensor, inputs: torch.Tensor | None) -> None:
        inputs, targets = self._given(rows, inputs), self.y.index_select(0, rows)
        whole = Whole(self.clip_norm, self._joined) if self.follow_gradient or self.clip_norm is not None else None
        # A penalty is a function of the weights as they are before the step, which descent within the backward pass would not leave.
        with contextlib.nullcontext() if self.penalties else fused_sgd(self.optimizer, whole):
            if has_gradients(self.optimizer):
                self.optimizer.zero_grad()
            outputs, loss = self._passes(inputs, targets)
            add_the_rest(self.optimizer)
            if self.penalties:
                self.penalties.add_gradients(self.iteration)
            if whole is not None:
                norm = clip_norm(self.optimizer, whole)
                if self.follow_gradient:
                    self._gradients.add_(norm)
            if not has_descended(self.optimizer):
                with on_behalf_of(origin(self.optimizer)):
                    self.optimizer.step()
        self._tally.loss.add_(loss, alpha=len(targets))
        self._tally.count(outputs, targets)

    def _passes(self, inputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Forward and back: the outputs, and the loss."""
        with autocast(self.precision, inputs.device):
            whole = None if self._chains is None else self._chains.whole(inputs)
            if whole is None:
                outputs = outputs_of(self.model, inputs, targets, self.objective)
                loss = self.objective.loss(outputs, targets)
        if whole is not None:
            return whole.descend(inputs, lambda outputs: self._lost(outputs, targets))
        loss.backward()  # type: ignore[no-untyped-call]
        return outputs.detach(), loss.detach()

    def _lost(self, outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.objective.loss_and_gradient(fitting(outputs, self.model, targets, self.objective), targets)

    def end_epoch(self) -> Score:
        """Mean loss and scores over the steps of the epoch that just ended, each taken before its step; starts counting afresh.

        Gradients are dropped, so that whatever comes between epochs has their room.
        """
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.after_epoch(self.iteration)
        steps = self.iteration % self.iterations_per_epoch or self.iterations_per_epoch
        samples = min(steps * self.batch_size, len(self.y))
        if self.follow_gradient:
            self.gradient_norm = self._gradients.item() / steps
            self._gradients.zero_()
        if self.penalties:
            self.penalised = self.penalties.end_epoch(self.iteration, steps)
        return self._tally.score(samples)

    def take_average(self) -> bool:
        """Put the average of the weights in their place, once training is over; False where nothing was averaged.

        An equal average has no statistics of batches: they are estimated on the training set, in the batches of the stretch's first epoch.
        """
        average, self.average = self.average, None
        if average is None or not average.count:
            return False
        average.put_into_network()
        if average.estimates_statistics:
            with torch.no_grad(), statistics_anew(self.model) as any_statistics:
                for batch in self._batches(self.first_epoch) if any_statistics else ():
                    with autocast(self.precision, self.x.device):
                        self.model(self._given(*batch))
        return True

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that is needed to go on to the same bits: weights, optimizer, random state, running sums; as tensors and JSON-ready data."""
        tensors = self._changing()
        tensors["generator.cpu"] = torch.get_rng_state()
        if self.x.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.x.device)
        if self.penalties:
            tensors.update(self.penalties.state())
        metadata: dict[str, Any] = {"iteration": self.iteration, "optimizer": optimizer_state(self.optimizer)[1]}
        if self.average is not None:
            tensors.update(self.average.state())
            metadata["averaged"] = self.average.count
        return tensors, metadata

    def _changing(self) -> dict[str, torch.Tensor]:
        """What a step changes on the device, where it lies; the penalties have their own."""
        tensors = {f"{MODEL}{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors.update(optimizer_state(self.optimizer)[0])
        if self.follow_gradient:
            tensors["gradients"] = self._gradients
        tensors["running.loss"] = self._tally.loss
        tensors.update({f"running.{name}": total for name, total in self._tally.totals.items()})
        return tensors

    def cuts(self) -> dict[str, Cut]:
        """What this process holds of the tensors of :meth:`state`, by name, known before the first step; nothing where it holds all.

        For :func:`~anarch_core.checkpoint.save_state` and :func:`~anarch_core.checkpoint.load_state`; of the optimizer as
        :func:`~anarch_core.training.optimizer_state.optimizer_cuts` has it.
        """
        held = cuts_of(self.model)
        named = {f"{prefix}{name}": cut for prefix in (MODEL, AVERAGE) for name, cut in held.items()}
        return named | optimizer_cuts(self.optimizer, self.model)

    def load_state(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            CheckpointError: the state is not of this network.
        """
        weights = {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}
        try:
            self.model.load_state_dict(weights)
        except RuntimeError as error:
            msg = f"the saved state does not fit the network: {error}"
            raise CheckpointError(msg) from error
        load_optimizer_state(self.optimizer, tensors, metadata["optimizer"])
        torch.set_rng_state(tensors["generator.cpu"].cpu())
        if self.x.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["generator.cuda"].cpu(), self.x.device)
        running = {name.removeprefix("running."): tensor for name, tensor in tensors.items() if name.startswith("running.")}
        self._tally.loss.copy_(running.pop("loss"))
        self._tally.totals = {name: total.to(self.x.device, copy=True) for name, total in running.items()}
        if self.follow_gradient:
            self._gradients.copy_(tensors["gradients"])
        if self.penalties:
            self.penalties.load_state(tensors)
        self.iteration = metadata["iteration"]
        if self.average is not None:
            self.average.load_state(tensors, metadata["averaged"])
