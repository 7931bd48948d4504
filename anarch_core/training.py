"""The one loop: minibatch gradient descent on data held as tensors, resumable after any step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from anarch_core.augmentation import Augmenting
from anarch_core.config.values import Precision
from anarch_core.data.order import batches_per_epoch, epoch_order
from anarch_core.errors import CheckpointError, ConfigError
from anarch_core.models import logits_of
from anarch_core.network import in_evaluation_mode
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
        loss: mean cross-entropy in nats.
        accuracy: in percent.
    """

    loss: float
    accuracy: float


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
def evaluate(model: nn.Module, x: torch.Tensor, y: torch.Tensor, batch: int = EVALUATED, *, precision: Precision = "float32") -> Score:
    """Loss and accuracy in eval mode; every module's mode is put back.

    Args:
        model: the network.
        x: inputs [n, channels, *spatial] on the model's device.
        y: labels [n], int64.
        batch: samples per forward pass.
        precision: as in training.

    Raises:
        ConfigError: the network gives something else than one row of logits for each sample, or tells fewer classes apart than there are.
    """
    largest = int(y.max())
    loss = torch.zeros((), dtype=torch.float64, device=x.device)
    correct = torch.zeros((), dtype=torch.int64, device=x.device)
    with in_evaluation_mode(model):
        laid_out = takes_channels_last(model, x)
        for inputs, labels in zip(torch.split(x, batch), torch.split(y, batch), strict=True):
            with _autocast(precision, x.device):
                logits = logits_of(model, channels_last(inputs) if laid_out else inputs)
            if largest >= logits.shape[1]:
                msg = f"labels go up to {largest}, but the network {type(model).__name__} tells only {logits.shape[1]} classes apart"
                raise ConfigError(msg)
            loss += cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), labels, reduction="sum")
            correct += right(logits, labels).sum()
    return Score(loss.item() / len(y), 100.0 * correct.item() / len(y))


def right(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Which samples are classified rightly, [n]; none of those that are given nan, which argmax would take for the largest."""
    return (outputs.argmax(1) == labels) & ~outputs.isnan().any(1)


@attrs.define(kw_only=True)
class Training:
    """A stretch of training under way.

    The order of batches is a function of (seed, epoch), where ``epoch`` counts from the network's birth: a branch goes on with the order
    its parent would have met. Nothing waits for the device inside an epoch.

    Attributes:
        model: the network, trained in place.
        optimizer: holds the model's parameters.
        x: training inputs [n, channels, *spatial] on the model's device.
        y: training labels [n], int64.
        batch_size: samples per step; the last batch of an epoch may be smaller.
        seed: of the batch order.
        first_epoch: epochs the network was trained before this stretch.
        learning_rate: learning rate of a step, counted from the start of the stretch.
        precision: see :func:`dtype_of` and :func:`matmul_precision`.
        augment: what is done to the inputs of a batch before the network is given them, if anything.
        iteration: steps done.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    x: torch.Tensor
    y: torch.Tensor
    batch_size: int
    seed: int
    learning_rate: Callable[[int], float]
    first_epoch: int = 0
    precision: Precision = "float32"
    augment: Augmenting | None = None
    iteration: int = 0
    _loss: torch.Tensor = attrs.field(init=False)
    _correct: torch.Tensor = attrs.field(init=False)
    _channels_last: bool = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._channels_last = takes_channels_last(self.model, self.x)
        self.model.train()
        self._loss = torch.zeros((), dtype=torch.float64, device=self.x.device)
        self._correct = torch.zeros((), dtype=torch.int64, device=self.x.device)

    @property
    def iterations_per_epoch(self) -> int:
        """Steps per epoch."""
        return batches_per_epoch(len(self.y), self.batch_size)

    def advance(self, until: int, pause: Callable[[], bool] = lambda: False) -> None:
        """Take steps until ``until`` of them are done in all, the epoch ends, or ``pause`` says so (asked after every step)."""
        epoch, done = divmod(self.iteration, self.iterations_per_epoch)
        order = epoch_order(len(self.y), self.seed, self.first_epoch + epoch).to(self.x.device)
        batches = torch.split(order, self.batch_size)[done : until - self.iteration + done]
        rate = None
        for rows in batches:
            if (wanted := self.learning_rate(self.iteration)) != rate:
                rate = wanted
                for group in self.optimizer.param_groups:
                    group["lr"] = rate * group.get("lr_scale", 1.0)
            inputs = self.x.index_select(0, rows)
            if self.augment is not None:
                inputs = self.augment(inputs, rows, self.first_epoch + epoch)
            self._step(channels_last(inputs) if self._channels_last else inputs, self.y.index_select(0, rows))
            self.iteration += 1
            if pause():
                break

    def _step(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        with fused_sgd(self.optimizer):
            with _autocast(self.precision, inputs.device):
                logits = logits_of(self.model, inputs)
                loss = cross_entropy(logits, labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            with on_behalf_of(origin(self.optimizer)):
                self.optimizer.step()
        self._loss.add_(loss.detach(), alpha=len(labels))
        self._correct.add_((logits.detach().argmax(1) == labels).sum())

    def end_epoch(self) -> Score:
        """Mean loss and accuracy over the steps of the epoch that just ended, each taken before its step; starts counting afresh.

        Gradients are dropped, so that whatever comes between epochs has their room.
        """
        self.optimizer.zero_grad()
        steps = self.iteration % self.iterations_per_epoch or self.iterations_per_epoch
        samples = min(steps * self.batch_size, len(self.y))
        score = Score(self._loss.item() / samples, 100.0 * self._correct.item() / samples)
        self._loss.zero_()
        self._correct.zero_()
        return score

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """All that is needed to go on to the same bits: weights, optimizer, random state, running sums; as tensors and JSON-ready data."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        optimizer_tensors, scalars = optimizer_state(self.optimizer)
        tensors.update(optimizer_tensors)
        tensors["generator.cpu"] = torch.get_rng_state()
        if self.x.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.x.device)
        tensors["running.loss"], tensors["running.correct"] = self._loss, self._correct
        return tensors, {"iteration": self.iteration, "optimizer": scalars}

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
        self._loss.copy_(tensors["running.loss"])
        self._correct.copy_(tensors["running.correct"])
        self.iteration = metadata["iteration"]


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
