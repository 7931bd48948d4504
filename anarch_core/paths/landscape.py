"""The loss as a function of a flat vector of weights, on a private copy of a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from anarch_core.curvature.differentiable import differentiable, require_visible
from anarch_core.errors import ProbeError
from anarch_core.network import copied, undisturbed
from anarch_core.objective.base import AbstractObjective
from anarch_core.objective.classification import CrossEntropy
from anarch_core.objective.outputs import outputs_of

Point = Callable[[Sequence[torch.Tensor]], None]
"""Writes weights into tensors that are shaped as they are."""

ALIKE = 1e4
"""Outputs that differ by less, in units of rounding of the largest, are those of one function; at most by a twentieth."""


class Landscape:
    """Weight space of one architecture.

    Batch-norm statistics belong to no point between two networks: they are estimated afresh wherever the loss is evaluated, and gradients
    are taken through those of the batch. Everything else, dropout too, is in evaluation mode.

    Attributes:
        names: of the weights, which are the coordinates; parameters of other than floating-point numbers stay as they are.
        parameters: the weights, on the private copy.
        size: number of weights P.
    """

    def __init__(
        self,
        model: nn.Module,
        x_train: torch.Tensor,
        *,
        objective: AbstractObjective | None = None,
        trained: Collection[str] | None = None,
        batch_size: int = 1000,
    ) -> None:
        """Take a copy of a network.

        Args:
            model: gives the architecture; never changed.
            x_train: inputs that batch-norm statistics are estimated on.
            objective: whose loss it is; classification by cross-entropy if None.
            trained: names of the parameters along which gradients are taken, which are zero along the others; all if None.
            batch_size: samples at once.

        Raises:
            ProbeError: there is batch norm, and but one sample.
        """
        self.network = copied(model).eval()
        self._weights = {name: parameter for name, parameter in self.network.named_parameters() if parameter.is_floating_point()}
        self._trained = frozenset(self._weights if trained is None else trained)
        self._move(self._weights)
        self.x_train = x_train
        self.objective = objective or CrossEntropy()
        self.batch_size = batch_size
        self._visible = False
        self._norms = normalisations(self.network)
        if self._norms and len(x_train) < 2:
            msg = f"batch-norm statistics are estimated at every point of a path, and {len(x_train)} sample is not enough; take at least 2"
            raise ProbeError(msg)

    @property
    def normalised(self) -> bool:
        """Whether there is batch norm with running statistics."""
        return bool(self._norms)

    def confine(self, home: nn.Module, moving: Collection[str]) -> None:
        """Have some weights alone as coordinates, with all else as a network has it.

        Args:
            home: that network, of this architecture.
            moving: names of the weights that are left.
        """
        self._move(self._weights)
        self._take(home)
        self._move(moving)

    def _move(self, names: Collection[str]) -> None:
        for name, parameter in self._weights.items():
            parameter.requires_grad_(name in names and name in self._trained)
        moving = {name: parameter for name, parameter in self._weights.items() if name in names}
        self.names, self.parameters = list(moving), list(moving.values())
        self.size = sum(parameter.numel() for parameter in self.parameters)

    def weights(self, model: nn.Module) -> Sequence[torch.Tensor]:
        """The weights of a network of this architecture, no copies; by name, whatever order it has them in."""
        parameters = dict(model.named_parameters())
        return [parameters[name].detach() for name in self.names]

    def views(self, point: torch.Tensor) -> Sequence[torch.Tensor]:
        """The parts of a flat vector [P] that belong to each parameter, as views of its shape."""
        parts = torch.split(point, [parameter.numel() for parameter in self.parameters])
        return [part.view(parameter.shape) for part, parameter in zip(parts, self.parameters, strict=True)]

    @torch.no_grad()
    def go(self, point: Point, buffers: Mapping[str, torch.Tensor] | None = None) -> nn.Module:
        """The network at a point, in evaluation mode, with batch-norm statistics of that point.

        Args:
            point: writes it into the tensors that it is called with, one for each parameter.
            buffers: to put in place of the network's own, by name.
        """
        self._write(point, buffers or {})
        if self._norms:
            refresh_batch_norm(self.network, self.x_train, self.batch_size)
        return self.network

    def gradient(
        self, point: torch.Tensor, x: torch.Tensor, y: torch.Tensor, buffers: Mapping[str, torch.Tensor] | None = None
    ) -> tuple[float, torch.Tensor]:
        """Loss of one batch at a point, and its gradient, [P]; buffers as above.

        Raises:
            ProbeError: autograd does not see all parameters.
        """
        loss, parts = self.slopes(copying(self.views(point)), x, y, buffers)
        slopes = (torch.zeros_like(parameter) if part is None else part for part, parameter in zip(parts, self.parameters, strict=True))
        return loss, torch.cat([slope.reshape(-1) for slope in slopes])

    def slopes(
        self, point: Point, x: torch.Tensor, y: torch.Tensor, buffers: Mapping[str, torch.Tensor] | None = None
    ) -> tuple[float, list[torch.Tensor | None]]:
        """Loss of one batch at a point, and its gradient in parts, each shaped as its parameter; None along those that are not trained.

        Raises:
            ProbeError: autograd does not see all parameters.
        """
        with torch.no_grad():
            self._write(point, buffers or {})
        for norm in self._norms:
            norm.train()
        trained = [parameter for parameter in self.parameters if parameter.requires_grad]
        with torch.enable_grad(), differentiable(self.network):
            loss = self.objective.loss(outputs_of(self.network, x, y, self.objective), y)
            if loss.requires_grad and not self._visible:
                require_visible(loss)
                self._visible = True
            slopes = iter(torch.autograd.grad(loss, trained, allow_unused=True, materialize_grads=True) if trained else ())
        for norm in self._norms:
            norm.eval()
        return float(loss.detach()), [next(slopes) if parameter.requires_grad else None for parameter in self.parameters]

    @torch.no_grad()
    def require_function_of(self, model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        """See that a network is this architecture in what it computes, not only in the names and shapes of its tensors.

        Args:
            model: the network.
            inputs: [n, ...].
            targets: of these inputs.

        Raises:
            ProbeError: with its weights and buffers in place, this one computes something else.
        """
        self._take(model)
        results = []
        for network in (self.network, model):
            with undisturbed(network), torch.no_grad():  # from the same random state, if it draws numbers
                results.append(outputs_of(network, inputs, targets, self.objective))
        here, there = results
        if here.shape == there.shape:
            tolerance = min(ALIKE * torch.finfo(here.dtype).eps, 0.05)
            largest = there.nan_to_num(0, 0, 0).abs().max() if there.numel() else there.new_zeros(())
            if torch.allclose(here, there, rtol=0, atol=tolerance * float(largest), equal_nan=True):
                return
        msg = (
            "the networks' parameters have the same names and shapes, but they are not one architecture: with the second one's weights the "
            "first computes something else (another stride, activation or attribute); mix what they say, by the methods logits and "
            "probabilities"
        )
        raise ProbeError(msg)

    @torch.no_grad()
    def _take(self, model: nn.Module) -> None:
        own = dict(self.network.named_buffers())
        self._write(copying(self.weights(model)), {name: buffer for name, buffer in model.named_buffers() if name in own})

    def _write(self, point: Point, buffers: Mapping[str, torch.Tensor]) -> None:
        point([parameter.detach() for parameter in self.parameters])
        own = dict(self.network.named_buffers())
        for name, buffer in buffers.items():
            own[name].copy_(buffer)


def copying(weights: Sequence[torch.Tensor]) -> Point:
    """The point of these weights."""

    def point(out: Sequence[torch.Tensor]) -> None:
        for target, weight in zip(out, weights, strict=True):
            target.copy_(weight)

    return point


def normalisations(model: nn.Module) -> list[_BatchNorm]:
    """The batch-norm layers that use running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


@torch.no_grad()
def refresh_batch_norm(model: nn.Module, x: torch.Tensor, batch_size: int = 1000) -> None:
    """Estimate the running statistics of every batch-norm layer anew, in one pass over ``x`` in its order.

    Only the batch-norm layers are put in training mode, so that dropout stays off. The batches are of one size, but for one sample, and
    count equally; what the variance between batches would add is of the order of one over the batch size.

    Args:
        model: changed in place; left in evaluation mode.
        x: inputs, [n, ...].
        batch_size: samples at once, at most.
    """
    model.eval()
    norms = normalisations(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for inputs in torch.tensor_split(x, -(-len(x) // batch_size)):
        model(inputs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
