"""The empirical risk as a function of the weights: its gradient, Hessian and generalised Gauss-Newton matrix.

Batches of size ``n_b`` count with ``n_b / N``, so that the last, smaller one weighs what its samples weigh. Products are
reverse-over-reverse on plain autograd (Pearlmutter 1994): they work wherever double backward does, and take about three gradients.
Attention and recurrent layers are computed by kernels for which it does (:mod:`anarch_core.curvature.differentiable`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from anarch_core.curvature.differentiable import differentiable, require_visible, require_whole, telling_layers
from anarch_core.curvature.operators import AbstractOperator
from anarch_core.curvature.vectors import vectors_of
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.models import input_dtype
from anarch_core.network import undisturbed
from anarch_core.objective.outputs import fitting
from anarch_core.sharding.shared_out import cuts_of, shards_of

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Risk:
    """Mean loss over fixed samples, as a function of some parameters of a network in evaluation mode.

    ReLU and max-pooling are differentiated on their current linear piece; batch normalisation uses its running statistics. The network
    is left as found by every method.

    Of a network that several processes hold together, each has the parts of flat vectors that belong to the parameters as it holds them.

    Attributes:
        names: the parameters it is a function of, in the network's order.
        size: how many numbers these are, P; of the whole network, where this process holds a part.
        vectors: flat vectors of them. Tensors have ``vectors.length`` numbers: all P of them, or those that this process holds.
        samples: number of samples N.
        shards: the processes that hold the network together; None where this one has all of it.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: torch.Tensor,
        targets: torch.Tensor,
        *,
        parameters: Sequence[str] | None = None,
        loss: Loss = nn.functional.cross_entropy,
        batch_size: int = 500,
    ) -> None:
        """Bind a network to its samples.

        Args:
            model: the network.
            inputs: [N, ...], on the network's device.
            targets: [N, ...].
            parameters: names of the parameters to differentiate by; all that require a gradient if None.
            loss: mean loss of a batch, (outputs, targets) -> scalar.
            batch_size: samples that go through the network at once; bounds memory, does not change results.

        Raises:
            ProbeError: there is nothing to differentiate by, no sample, parameters of half precision or of several dtypes, or samples in
                several batches where layers normalise by statistics of the batch, so that results would depend on how they are divided.
        """
        known = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        if parameters is not None and (missing := sorted(set(parameters) - known.keys())):
            msg = f"no such trainable parameters: {', '.join(missing)}; the network has {', '.join(known) or 'none'}"
            raise ProbeError(msg)
        chosen = {name: parameter for name, parameter in known.items() if parameters is None or name in parameters}
        if not chosen:
            msg = "the network has no parameters that require a gradient; set requires_grad before measuring its curvature"
            raise ProbeError(msg)
        if len(inputs) == 0 or len(inputs) != len(targets):
            msg = f"curvature needs as many targets as samples and at least one, got {len(inputs)} samples and {len(targets)} targets"
            raise ProbeError(msg)
        kinds = {(parameter.dtype, parameter.device) for parameter in chosen.values()}
        if len(kinds) > 1 or next(iter(kinds))[0] not in (torch.float32, torch.float64):
            found = ", ".join(sorted(f"{dtype} on {device}" for dtype, device in kinds))
            msg = f"curvature needs parameters of one device, all float32 or all float64, got {found}; convert the network with .float()"
            raise ProbeError(msg)
        mixing = [path for path, module in model.named_modules() if isinstance(module, _BatchNorm) and module.running_mean is None]
        if mixing and len(inputs) > batch_size:
            named = ", ".join(mixing[:5]) + (" ..." if len(mixing) > 5 else "")
            msg = (
                f"{named}: batch norm without running statistics mixes the samples of a batch, so curvature would depend on batch_size; "
                f"let it be at least the number of samples, {len(inputs)} (got {batch_size}), or measure fewer samples"
            )
            raise ProbeError(msg)
        self.model = model
        self.inputs = inputs
        self.targets = targets
        self.loss = loss
        self.batch_size = batch_size
        self.names = tuple(chosen)
        self.parameters = tuple(chosen.values())
        self.samples = len(inputs)
        (self.dtype, self.device) = next(iter(kinds))
        self.shards, self._cuts = shards_of(model), cuts_of(model)
        self.vectors = vectors_of(model, chosen)
        self.size = self.vectors.size
        self._visible = self._whole = False

    @classmethod
    def of_training_set(
        cls, model: nn.Module, data: TensorData, samples: int | None, *, parameters: Sequence[str] | None = None, batch_size: int = 500
    ) -> Risk:
        """The training loss, of the data's objective, over a fixed, class-balanced part of the training set.

        Args:
            model: the network.
            data: on the network's device.
            samples: how many; all if None. A smaller choice is part of a larger one.
            parameters: as for the constructor.
            batch_size: as for the constructor.

        Its methods raise ConfigError where the network gives no outputs that the objective expects.
        """
        chosen = data if samples is None else data.limited(samples)
        inputs = chosen.x_train.to(input_dtype(model, chosen.x_train))

        def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return data.objective.loss(fitting(outputs, model, targets, data.objective), targets)

        return cls(model, inputs, chosen.y_train, parameters=parameters, loss=loss, batch_size=batch_size)

    def views(self, vector: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The parts of a flat vector [length] that belong to each parameter, as views of its shape."""
        parts = torch.split(vector, [parameter.numel() for parameter in self.parameters])
        return tuple(part.view(parameter.shape) for part, parameter in zip(parts, self.parameters, strict=True))

    def named_views(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """As :meth:`views`, by name."""
        return dict(zip(self.names, self.views(vector), strict=True))

    def totals(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Sums over the processes of numbers by parameter, such as squared norms, on every process.

        Of a parameter of which each holds a part it is the sum over the parts; of one that all hold, the number of the first. The numbers
        as they are, where one process has all of the network.

        Args:
            numbers: by names of parameters, the same ones on every process.
        """
        if self.shards is None:
            return dict(numbers)
        own = [number if self.shards.leads or name in self._cuts else 0.0 for name, number in numbers.items()]
        return dict(zip(numbers, self.shards.totals(own), strict=True))

    def value(self) -> float:
        """The risk itself."""
        with self.measuring(), torch.no_grad():
            return math.fsum(weight * float(self.loss(self.model(inputs), targets)) for inputs, targets, weight in self._batches())

    def gradient(self) -> torch.Tensor:
        """Gradient of the risk, flat, [length]."""

        def of_batch(outputs: torch.Tensor, targets: torch.Tensor, weight: float) -> Sequence[torch.Tensor]:
            return self.slopes(outputs, targets, weight)

        total = torch.zeros(self.vectors.length, dtype=self.dtype, device=self.device)
        self._add(of_batch, total)
        return total

    def add_hessian_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        """Add the Hessian of the risk times a flat vector [length] to ``out``, [length].

        Raises:
            ProbeError: a layer cannot be differentiated twice, or autograd does not see all parameters.
        """
        direction = self.views(vector)

        def of_batch(outputs: torch.Tensor, targets: torch.Tensor, weight: float) -> Sequence[torch.Tensor]:
            gradient = self.slopes(outputs, targets, weight, create_graph=True)
            return _derivatives(gradient, self.parameters, direction)

        with telling_layers(self.model, self.inputs):
            self._add(of_batch, out)

    def add_gauss_newton_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        """Add the generalised Gauss-Newton matrix times a flat vector [length] to ``out``, [length].

        ``J' (d2 loss / d outputs2) J`` with ``J`` the Jacobian of the outputs (Schraudolph 2002): the Hessian less the curvature of the
        network itself. Positive semi-definite where the loss is convex in the outputs.

        Raises:
            ProbeError: a layer cannot be differentiated twice, or autograd does not see all parameters.
        """
        direction = self.views(vector)

        def of_batch(outputs: torch.Tensor, targets: torch.Tensor, weight: float) -> Sequence[torch.Tensor]:
            self._require_visible(outputs)
            cotangent = torch.ones_like(outputs, requires_grad=True)
            pulled_back = _derivatives([outputs], self.parameters, [cotangent], create_graph=True)
            self._require_whole(pulled_back)
            (pushed_forward,) = _derivatives(pulled_back, [cotangent], direction)
            leaf = outputs.detach().requires_grad_()
            slope = _derivatives([self.loss(leaf, targets) * weight], [leaf], create_graph=True)
            curved = _derivatives(slope, [leaf], [pushed_forward])
            return _derivatives([outputs], self.parameters, curved)

        with telling_layers(self.model, self.inputs):
            self._add(of_batch, out)

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """The network as it is measured: undisturbed, in evaluation mode, differentiable."""
        with undisturbed(self.model), differentiable(self.model):
            yield

    def slopes(
        self, outputs: torch.Tensor, targets: torch.Tensor, weight: float = 1.0, *, create_graph: bool = False
    ) -> Sequence[torch.Tensor]:
        """Gradient of the loss of a batch, by parameter.

        Args:
            outputs: of the network.
            targets: of the batch.
            weight: of the batch.
            create_graph: so that they can be differentiated.

        Raises:
            ProbeError: autograd sees no way from the loss to a parameter, or not all of them.
            RuntimeError: they cannot be differentiated, though they should be.
        """
        loss = self.loss(outputs, targets) * weight
        self._require_visible(loss)
        if not create_graph:
            return _derivatives([loss], self.parameters)
        given = [outputs] if isinstance(outputs, torch.Tensor) and outputs.requires_grad else []
        found = torch.autograd.grad(loss, [*self.parameters, *given], create_graph=True, allow_unused=True)
        slopes, steepness = found[: len(self.parameters)], found[len(self.parameters) :]
        if any(slope is not None and slope.requires_grad for slope in steepness):  # of a linear loss, slopes may be constants
            self._require_whole(slopes)
        return [torch.zeros_like(parameter) if slope is None else slope for slope, parameter in zip(slopes, self.parameters, strict=True)]

    def _require_visible(self, result: torch.Tensor) -> None:
        """See that autograd knows what an output or loss depends on; all of it once, as a network has the same layers in every batch."""
        if not result.requires_grad:
            names = ", ".join(self.names[:5]) + (" ..." if len(self.names) > 5 else "")
            msg = (
                f"autograd sees no way from the outputs to the parameters {names}, so there is no derivative to take; let the network "
                "compute without torch.no_grad() and detach()"
            )
            raise ProbeError(msg)
        if not self._visible:
            require_visible(result)
            self._visible = True

    def _require_whole(self, slopes: Sequence[torch.Tensor | None]) -> None:
        """Likewise, that no layer cut off derivatives of derivatives."""
        if not self._whole:
            require_whole(slopes)
            self._whole = True

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, float]]:
        for inputs, targets in zip(torch.split(self.inputs, self.batch_size), torch.split(self.targets, self.batch_size), strict=True):
            yield inputs, targets, len(inputs) / self.samples

    def _add(self, of_batch: Callable[[torch.Tensor, torch.Tensor, float], Sequence[torch.Tensor]], out: torch.Tensor) -> None:
        parts = self.views(out)
        with self.measuring():
            for inputs, targets, weight in self._batches():
                for part, term in zip(parts, of_batch(self.model(inputs), targets, weight), strict=True):
                    part.add_(term)


def _derivatives(
    outputs: Sequence[torch.Tensor],
    inputs: Sequence[torch.Tensor],
    cotangents: Sequence[torch.Tensor] | None = None,
    *,
    create_graph: bool = False,
    retain_graph: bool = False,
) -> tuple[torch.Tensor, ...]:
    """Vector-Jacobian product; zeros where there is no dependence (a linear layer's own second derivative has no graph)."""
    dependent = [index for index, output in enumerate(outputs) if output.requires_grad]
    if not dependent:
        return tuple(torch.zeros_like(tensor) for tensor in inputs)
    return torch.autograd.grad(
        [outputs[index] for index in dependent],
        inputs,
        None if cotangents is None else [cotangents[index] for index in dependent],
        create_graph=create_graph,
        retain_graph=create_graph or retain_graph,
        allow_unused=True,
        materialize_grads=True,
    )


class HessianOperator(AbstractOperator):
    """Hessian of a risk.

    Where all samples fit into one batch, the gradient's graph is kept between products, which saves the forward pass and the first
    backward pass of all but the first. The network must not change while the operator is in use.
    """

    def __init__(self, risk: Risk) -> None:
        super().__init__(size=risk.size, dtype=risk.dtype, device=risk.device, vectors=risk.vectors)
        self.risk = risk
        self._gradient: Sequence[torch.Tensor] | None = None

    def _add_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        if self.risk.samples > self.risk.batch_size:
            self.risk.add_hessian_product(vector, out)
            return
        with telling_layers(self.risk.model, self.risk.inputs), self.risk.measuring():
            if self._gradient is None:
                self._gradient = self.risk.slopes(self.risk.model(self.risk.inputs), self.risk.targets, create_graph=True)
            parts = _derivatives(self._gradient, self.risk.parameters, self.risk.views(vector), retain_graph=True)
            for view, part in zip(self.risk.views(out), parts, strict=True):
                view.add_(part)


class GaussNewtonOperator(AbstractOperator):
    """Generalised Gauss-Newton matrix of a risk."""

    def __init__(self, risk: Risk) -> None:
        super().__init__(size=risk.size, dtype=risk.dtype, device=risk.device, vectors=risk.vectors)
        self.risk = risk

    def _add_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        self.risk.add_gauss_newton_product(vector, out)
