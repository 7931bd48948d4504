"""Averages of the weights that training passes through: networks of their own, often better ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn

from anarch_core.errors import CheckpointError
from anarch_core.network import in_evaluation_mode

PREFIX = "average."
"""Of the names of its tensors in a saved state."""


class RunningAverage:
    """The average of a network's numbers over moments of its training: of parameters and of buffers that hold floating-point numbers.

    It takes the memory of one more network from the first of those moments on, in the dtype of the weights, and nothing before.

    Args:
        model: the network that is trained; looked at, and written to by :meth:`put_into_network` alone.
        kind: ``"ema"`` or ``"swa"``, see :class:`anarch_core.config.weight_average.WeightAverage`.
        number: the decay or the share.
        iterations: length of the stretch in optimizer steps.
    """

    def __init__(self, model: nn.Module, kind: Literal["ema", "swa"], number: float, iterations: int) -> None:
        self._model, self._kind, self._number, self._iterations = model, kind, number, iterations
        self._average: list[torch.Tensor] = []
        self.count = 0

    def after_step(self, iteration: int) -> None:
        """The step that is the ``iteration``-th of the stretch, the first being 1, was taken."""
        if self._kind == "ema":
            self._add((1.0 - self._number) / (1.0 - self._number**iteration))

    def after_epoch(self, iteration: int) -> None:
        """An epoch, or the stretch, ended with that step."""
        if self._kind == "swa" and iteration >= self._number * self._iterations:
            self._add(1.0 / (self.count + 1))

    @torch.no_grad()
    def _add(self, weight: float) -> None:
        """Let what the network is now make up that part of the average."""
        now = list(self._numbers().values())
        if self._average:
            torch._foreach_lerp_(self._average, now, weight)
        else:
            self._average = [tensor.detach().clone() for tensor in now]
        self.count += 1

    def _numbers(self) -> dict[str, torch.Tensor]:
        named = [*self._model.named_parameters(), *self._model.named_buffers()]
        return {name: tensor for name, tensor in named if tensor.is_floating_point() or tensor.is_complex()}

    @property
    def estimates_statistics(self) -> bool:
        """Whether statistics of batches are to be estimated anew for the average; those of an exponential average are averaged likewise."""
        return self._kind == "swa"

    @torch.no_grad()
    def put_into_network(self) -> None:
        """Give the network the averaged numbers, and the average its memory back. Other buffers stay as training left them."""
        for tensor, average in zip(self._numbers().values(), self._average, strict=True):
            tensor.copy_(average)
        self._average = []

    def state(self) -> dict[str, torch.Tensor]:
        """The average so far, by name."""
        return dict(zip((f"{PREFIX}{name}" for name in self._numbers()), self._average, strict=False))

    def load_state(self, tensors: Mapping[str, torch.Tensor], count: int) -> None:
        """Take up what :meth:`state` gave.

        Args:
            tensors: by name; others are passed over.
            count: moments that were averaged.

        Raises:
            CheckpointError: the average is not of this network.
        """
        found = {name: tensors[f"{PREFIX}{name}"] for name in self._numbers() if f"{PREFIX}{name}" in tensors} if count else {}
        if count and found.keys() != self._numbers().keys():
            msg = "the saved average does not fit the network: " + ", ".join(sorted(self._numbers().keys() - found.keys())) + " are missing"
            raise CheckpointError(msg)
        # As the weights are laid out: one inside a file's buffer may be laid out so that rounding differs.
        self._average = [torch.empty_like(self._numbers()[name]).copy_(tensor) for name, tensor in found.items()]
        self.count = count


@contextmanager
def statistics_anew(model: nn.Module) -> Iterator[bool]:
    """Inside, what the network is given counts alike in the statistics of its batch normalisations, which begin anew; the rest evaluates.

    Those that are not in training mode keep theirs. Yields whether there are any; the modes of all modules are put back.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats and module.training
    ]
    with in_evaluation_mode(model):
        momenta = [norm.momentum for norm in norms]
        try:
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the mean over all batches
                norm.training = True
            yield bool(norms)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
