"""The one loop: minibatch gradient descent on data held as tensors, resumable after any step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from anarch_core.augmentation import Augmenting
from anarch_core.averages import RunningAverage, statistics_anew
from anarch_core.config.values import Precision
from anarch_core.data.order import batches_per_epoch, epoch_order
from anarch_core.data.stored import Inputs, Stored, batches
from anarch_core.errors import CheckpointError, ConfigError
from anarch_core.network import in_evaluation_mode
from anarch_core.objective.base import AbstractObjective
from anarch_core.objective.classification import CrossEntropy
from anarch_core.objective.outputs import outputs_of
from anarch_core.ops.fused import fused_sgd
from anarch_core.ops.memory_format import channels_last, takes_channels_last
from anarch_core.plugin.blame import on_behalf_of, origin

__all__ = ["Score", "evaluate"]

EVALUATED = 1000
"""Samples that a network is evaluated on at a time."""


@attrs.frozen
class Score:
    """How well a network does on some data.

    Attributes:
        loss: mean loss of the objective.
        metrics: its scores by name; each is an attribute, too: ``score.accuracy``.
    """

    loss: float
    metrics: Mapping[str, float]

    def __getattr__(self, name: str) -> float:
        """A score by its name."""
        try:
            return self.metrics[name]
        except KeyError:
            msg = f"there is no score {name!r}; there are {', '.join(['loss', *self.metrics])}"
            raise AttributeError(msg) from None


@attrs.define(eq=False)
class Tally:
    """The running sums behind a score, on the device: nothing waits for it until the score is asked for.

    Attributes:
        objective: what is learnt.
        loss: sum of the losses of samples, float64.
        totals: sums of what the objective tallies, by name.
    """

    objective: AbstractObjective
    loss: torch.Tensor
    totals: dict[str, torch.Tensor] = attrs.field(factory=dict)

    @classmethod
    def empty(cls, objective: AbstractObjective, device: torch.device) -> Tally:
        """Of no sample."""
        return cls(objective, torch.zeros((), dtype=torch.float64, device=device))

    def count(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add the samples of a batch, but for their loss."""
        for name, tensor in self.objective.tally(outputs, targets).items():
            if name in self.totals:
                self.totals[name].add_(tensor)
            else:
                self.totals[name] = tensor.clone()

    def score(self, samples: int) -> Score:
        """The means over so many samples; they are counted afresh from now on."""
        score = Score(self.loss.item() / samples, dict(self.objective.scores(self.totals, samples)))
        self.loss.zero_()
        for tensor in self.totals.values():
            tensor.zero_()
        return score


def dtype_of(precision: Precision) -> torch.dtype:
    """Type of the weights and the inputs; under ``bfloat16`` the weights stay float32 and only products are taken in bfloat16."""
    return torch.float64 if precision == "float64" else torch.float32


@contextlib.contextmanager
def matmul_precision(precision: Precision) -> Iterator[None]:
    """Allow TF32 in matrix products and convolutions only where it was asked for; the settings found are put back."""
    found = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = found


def _autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()


@torch.no_grad()
def evaluate(
    model: nn.Module,
    x: Inputs,
    y: torch.Tensor,
    batch: int = EVALUATED,
    *,
    precision: Precision = "float32",
    objective: AbstractObjective | None = None,
) -> Score:
    """Loss and scores in eval mode; every module's mode is put back.

    Args:
        model: the network.
        x: inputs [n, channels, *spatial] on the model's device, or read to it a batch at a time.
        y: targets [n, ...], for a classification int64 [n].
        batch: samples per forward pass.
        precision: as in training.
        objective: what is measured, ``data.objective``; classification by cross-entropy if None.

    Raises:
        ConfigError: the network gives something else than the objective expects, or tells fewer classes apart than there are.
    """
    objective = objective or CrossEntropy()
    tally = Tally.empty(objective, x.device)
    wanted = [slice(start, start + batch) for start in range(0, len(x), batch)]
    with in_evaluation_mode(model), contextlib.closing(batches(x, wanted)) as read:
        laid_out = takes_channels_last(model, x[:2])
        for inputs, targets in zip(read, torch.split(y, batch), strict=True):
            with _autocast(precision, x.device):
                outputs = outputs_of(model, channels_last(inputs) if laid_out else inputs, targets, objective)
            if not tally.totals and (problem := objective.mismatch(outputs, y)) is not None:
                msg = f"{problem} (network {type(model).__name__})"
                raise ConfigError(msg)
            tally.loss += objective.loss(outputs.to(torch.promote_types(outputs.dtype, torch.float32)), targets, "sum")
            tally.count(outputs, targets)
    return tally.score(len(y))


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
        average: of the weights, kept up while they are trained; None without one.
        iteration: steps done.
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
    average: RunningAverage | None = None
    iteration: int = 0
    _tally: Tally = attrs.field(init=False)
    _channels_last: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._channels_last = takes_channels_last(self.model, self.x[:2])
        self.model.train()
        self._tally = Tally.empty(self.objective, self.x.device)

    @property
    def iterations_per_epoch(self) -> int:
        """Steps per epoch."""
        return batches_per_epoch(len(self.y), self.batch_size)

    def advance(self, until: int, pause: Callable[[], bool] = lambda: False) -> None:
        """Take steps until ``until`` of them are done in all, the epoch ends, or ``pause`` says so (asked after every step)."""
        epoch, done = divmod(self.iteration, self.iterations_per_epoch)
        rate = None
        with contextlib.closing(self._batches(self.first_epoch + epoch, done, done + until - self.iteration)) as read:
            for rows, inputs in read:
                if (wanted := self.learning_rate(self.iteration)) != rate:
                    rate = wanted
                    for group in self.optimizer.param_groups:
                        group["lr"] = rate * group.get("lr_scale", 1.0)
                self._step(inputs, self.y.index_select(0, rows))
                self.iteration += 1
                if self.average is not None:
                    self.average.after_step(self.iteration)
                if pause():
                    break

    def _batches(self, epoch: int, first: int = 0, last: int | None = None) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
        """Some batches of an epoch of the network's life: their rows, and the inputs as the network is given them."""
        order = epoch_order(len(self.y), self.seed, epoch)
        there = torch.split(order.to(self.x.device), self.batch_size)[first:last]
        here = torch.split(order, self.batch_size)[first:last]
        with contextlib.closing(batches(self.x, here if isinstance(self.x, Stored) else there)) as read:
            for rows, inputs in zip(there, read, strict=True):
                if self.augment is not None:
                    inputs = self.augment(inputs, rows, epoch)
                yield rows, channels_last(inputs) if self._channels_last else inputs

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        # Fused steps change weights before the whole gradient is known.
        with fused_sgd(self.optimizer) if self.clip_norm is None else contextlib.nullcontext():
            with _autocast(self.precision, inputs.device):
                outputs = outputs_of(self.model, inputs, targets, self.objective)
                loss = self.objective.loss(outputs, targets)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            if self.clip_norm is not None:
                clip_grad_norm_([weight for group in self.optimizer.param_groups for weight in group["params"]], self.clip_norm)
            with on_behalf_of(origin(self.optimizer)):
                self.optimizer.step()
        self._tally.loss.add_(loss.detach(), alpha=len(targets))
        self._tally.count(outputs.detach(), targets)

    def end_epoch(self) -> Score:
        """Mean loss and scores over the steps of the epoch that just ended, each taken before its step; starts counting afresh.

        Gradients are dropped, so that whatever comes between epochs has their room.
        """
        self.optimizer.zero_grad()
        if self.average is not None:
            self.average.after_epoch(self.iteration)
        steps = self.iteration % self.iterations_per_epoch or self.iterations_per_epoch
        samples = min(steps * self.batch_size, len(self.y))
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
                for _, inputs in self._batches(self.first_epoch) if any_statistics else ():
                    with _autocast(self.precision, self.x.device):
                        self.model(inputs)
        return True

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that is needed to go on to the same bits: weights, optimizer, random state, running sums; as tensors and JSON-ready data."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        optimizer_tensors, scalars = optimizer_state(self.optimizer)
        tensors.update(optimizer_tensors)
        tensors["generator.cpu"] = torch.get_rng_state()
        if self.x.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.x.device)
        tensors["running.loss"] = self._tally.loss
        tensors.update({f"running.{name}": total for name, total in self._tally.totals.items()})
        metadata: dict[str, Any] = {"iteration": self.iteration, "optimizer": scalars}
        if self.average is not None:
            tensors.update(self.average.state())
            metadata["averaged"] = self.average.count
        return tensors, metadata

    def load_state(self, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
        """Take up what :meth:`state` gave.

        Raises:
            CheckpointError: the state is not of this network.
        """
        weights = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
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
        self.iteration = metadata["iteration"]
        if self.average is not None:
            self.average.load_state(tensors, metadata["averaged"])


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, Any]]]:
    """An optimizer's memory as tensors named ``optimizer.<index>.<key>`` and, by index, the entries that are not tensors."""
    tensors: dict[str, torch.Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                scalars.setdefault(str(index), {})[key] = value
    return tensors, scalars


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], scalars: Mapping[str, Mapping[str, Any]]
) -> None:
    """Give a fresh optimizer the memory that :func:`optimizer_state` took; settings such as momentum stay its own."""
    state: dict[int, dict[str, Any]] = {int(index): dict(entries) for index, entries in scalars.items()}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            # A copy: PyTorch keeps the tensor it is given, and one inside a file's buffer may be laid out so that rounding differs.
            state.setdefault(int(index), {})[key] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
