"""The loss as a function of a flat vector of weights, on a private copy of a network."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Landscape:
    """Weight space of one architecture.

    Batch-norm statistics belong to no point between two networks: they are estimated afresh wherever the loss is evaluated, and gradients
    are taken through those of the batch. Everything else, dropout too, is in evaluation mode.

    Attributes:
        size: number of weights P.
    """

    def __init__(self, model: nn.Module, x_train: torch.Tensor, batch_size: int = 1000) -> None:
        """Take a copy of a network.

        Args:
            model: gives the architecture; never changed.
            x_train: inputs that batch-norm statistics are estimated on.
            batch_size: samples at once.
        """
        self.network = copy.deepcopy(model).eval().requires_grad_(True)
        self.parameters = list(self.network.parameters())
        self.size = sum(parameter.numel() for parameter in self.parameters)
        self.x_train = x_train
        self.batch_size = batch_size
        self._norms = [module for module in self.network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]

    @property
    def normalised(self) -> bool:
        """Whether there is batch norm with running statistics."""
        return bool(self._norms)

    def point(self, model: nn.Module) -> torch.Tensor:
        """The weights of a network of this architecture, flat, [P]."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])

    def views(self, point: torch.Tensor) -> Sequence[torch.Tensor]:
        """The parts of a flat vector [P] that belong to each parameter, as views of its shape."""
        parts = torch.split(point, [parameter.numel() for parameter in self.parameters])
        return [part.view(parameter.shape) for part, parameter in zip(parts, self.parameters, strict=True)]

    @torch.no_grad()
    def go(self, point: torch.Tensor) -> nn.Module:
        """The network at a point, in evaluation mode, with batch-norm statistics of that point."""
        self._write(point)
        if self._norms:
            refresh_batch_norm(self.network, self.x_train, self.batch_size)
        return self.network

    def gradient(self, point: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Cross-entropy of one batch at a point, and its gradient, [P]."""
        with torch.no_grad():
            self._write(point)
        for norm in self._norms:
            norm.train()
        with torch.enable_grad():
            loss = nn.functional.cross_entropy(self.network(x), y)
            gradient = torch.autograd.grad(loss, self.parameters, allow_unused=True, materialize_grads=True)
        for norm in self._norms:
            norm.eval()
        return float(loss.detach()), torch.cat([part.reshape(-1) for part in gradient])

    def _write(self, point: torch.Tensor) -> None:
        for parameter, part in zip(self.parameters, self.views(point), strict=True):
            parameter.copy_(part)


@torch.no_grad()
def refresh_batch_norm(model: nn.Module, x: torch.Tensor, batch_size: int = 1000) -> None:
    """Estimate the running statistics of every batch-norm layer anew, in one pass over ``x`` in its order.

    Only the batch-norm layers are put in training mode, so that dropout stays off. Each batch counts equally; what the variance between
    batches would add is of the order of one over the batch size.

    Args:
        model: changed in place; left in evaluation mode.
        x: inputs, [n, ...].
        batch_size: samples at once.
    """
    model.eval()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for inputs in torch.split(x, batch_size):
        model(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
