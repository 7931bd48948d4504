"""Terms beside the loss, which hold relaxed layers near to the constrained ones: the interface of penalties, and their part in a step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs
import torch
from torch import nn

from anarch_core.constraint.parts import Part
from anarch_core.errors import CheckpointError, PenaltyError, PluginError, SurgeryError
from anarch_core.layers.base import RelaxedLayer, relaxed_layers
from anarch_core.plugin.blame import on_behalf_of, origin
from anarch_core.schedule import Moment
from anarch_core.training.precision import matmul_precision

Ramp = Literal["constant", "linear", "cosine"]
"""How a number goes from one value to another, see :meth:`Progress.ramp`."""

PREFIX = "penalty."
"""Of the names of its tensors in a saved state."""


@attrs.frozen(kw_only=True)
class Progress:
    """How far a stretch of training is.

    Attributes:
        iteration: optimizer steps done before this one, counted from the start of the stretch.
        iterations: optimizer steps of the stretch.
        iterations_per_epoch: optimizer steps of an epoch.
    """

    iteration: int
    iterations: int
    iterations_per_epoch: int = 1

    def ramp(self, kind: Ramp, start: float, end: float, *, begins: str = "0ep", ends: str | None = None) -> float:
        """What a number is now that goes from one value to another.

        Args:
            kind: ``"constant"``, the end from the beginning on; ``"linear"``; ``"cosine"``, half a cosine, flat at both ends.
            start: the value up to the moment ``begins``.
            end: the value from the moment ``ends`` on.
            begins: text of a moment of the stretch, ``"5ep"`` or ``"500it"``.
            ends: likewise; the last step of the stretch if None.

        Raises:
            ConfigError: a text is no moment.
        """
        first = Moment.parse(begins, self.iterations_per_epoch).iteration
        last = self.iterations - 1 if ends is None else Moment.parse(ends, self.iterations_per_epoch).iteration
        if self.iteration < first:
            return start
        if kind == "constant" or self.iteration >= last:
            return end
        share = (self.iteration - first) / (last - first)
        return start + (end - start) * (share if kind == "linear" else (1 - math.cos(math.pi * share)) / 2)


@attrs.frozen(eq=False)
class Term:
    """What a penalty adds to the loss for one layer.

    Attributes:
        layer: its path in the network.
        value: scalar, of any floating dtype.
        gradients: of the value by the layer's own parameters, by name and shaped as they are; those that are left out have none.
    """

    layer: str
    value: torch.Tensor
    gradients: Mapping[str, torch.Tensor]


@attrs.frozen(eq=False)
class PartSquare:
    """Half the squared norm of parts of a layer, as the matrix from its inputs to its outputs has it.

    Attributes:
        gradients: of it by the layer's parameters, by name: the parts themselves, times share counts.
        squares: twice its value, the squared norm, parameter by parameter; scalars of the parameters' dtype on their device.
        drifting: the squared norm over those of the parameters that :meth:`~anarch_core.layers.RelaxedLayer.drift` measures, which leaves
            biases out.
    """

    gradients: dict[str, torch.Tensor]
    squares: dict[str, torch.Tensor]
    drifting: torch.Tensor

    @classmethod
    def of(cls, layer: RelaxedLayer, parts: Collection[Part], path: str = "") -> PartSquare:
        """Take it of a layer, without autograd: the gradient of ½‖P W‖² is P W.

        Args:
            layer: the layer.
            parts: of ``"shared"``, ``"unshared"`` and ``"off-local"``.
            path: of the layer, for messages.

        Raises:
            PenaltyError: the layer's parameters are not weights, or it says that they have no parts; or it cannot tell the two parts
                apart of which one is asked for.
        """
        if ("unshared" in parts) != ("off-local" in parts) and not layer.tells_parts_apart:
            msg = (
                f"there is no penalty on the unshared or the off-local part of {path or 'the network'} alone: its weights are shared, "
                "and padding lets some of them meet in one pixel, so the layer can hold neither by itself; hold both, or relax it otherwise"
            )
            raise PenaltyError(msg)
        with torch.no_grad():
            parameters = dict(layer.named_parameters())
            try:
                layer.gram(next(iter(parameters.values())), next(iter(parameters)))
                kept = layer.weighted(parameters, dict.fromkeys(parts, 1.0))
            except SurgeryError as error:
                msg = f"there is no penalty on parts of {path or 'the network'}: {error}; leave the penalty out, or relax it otherwise"
                raise PenaltyError(msg) from error
            gradients = {name: layer.gram(part, name) for name, part in kept.items()}
            squares = {name: torch.dot(part.flatten(), gradients[name].flatten()) for name, part in kept.items()}
            drifting = [squares[name] for name in layer.drifting()]
            return cls(gradients, squares, torch.stack(drifting).sum())


class AbstractPenalty(ABC):
    """A term beside the loss of a network with relaxed layers. New in 1.3.

    A penalty is built with an instance of its option class (or None), anew for every stretch of training, so it may remember things
    from step to step. What it remembers is part of :meth:`state`: a stretch that is gone on with comes to the same numbers.
    """

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
        """The terms of one step, one layer after another; asked once a step, once the gradients of the loss are there, without autograd.

        A step in which a layer has no term yields none for it. What is yielded is added to the gradients before the next is asked for, so
        no more than one layer's gradients have to be held. Numbers that stay on the device do not make training wait for it.

        Args:
            layers: the relaxed layers of the network, by path; not to be written to.
            progress: of the stretch.
        """

    def scalars(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Mapping[str, float]:
        """What the history says of the penalty at the end of an epoch, besides the mean of its value: numbers by name; none by default."""
        return {}

    def state(self) -> dict[str, torch.Tensor]:
        """What it remembers, by name; nothing by default. The tensors may be those it goes on to write to."""
        return {}

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what :meth:`state` gave, on any device; not asked where that was nothing."""
        msg = f"{type(self).__name__} gives a state() and has no load_state() to take it up again"
        raise PluginError(msg)


def idle_penalties(names: Iterable[str], rows: Sequence[Mapping[str, float | None]]) -> list[str]:
    """Those of some penalties that, by the rows of a history, added nothing to the loss in any of its epochs."""
    return [name for name in names if rows and all(row.get(f"{name}.value") == 0 for row in rows)]


class Penalties:
    """The penalties of a network under training.

    Args:
        penalties: by name, in the order in which they are added.
        model: the network; without relaxed layers nothing is ever added.
        iterations: length of the stretch in optimizer steps.
        iterations_per_epoch: optimizer steps of an epoch.

    Attributes:
        iterations: as given.
    """

    def __init__(self, penalties: Mapping[str, AbstractPenalty], model: nn.Module, iterations: int, iterations_per_epoch: int = 1) -> None:
        self._layers = relaxed_layers(model) if penalties else {}
        self._penalties = penalties if self._layers else {}
        self.iterations, self._iterations_per_epoch = iterations, iterations_per_epoch
        device = next((parameter.device for layer in self._layers.values() for parameter in layer.parameters()), None)
        self._sums = {name: torch.zeros((), dtype=torch.float64, device=device) for name in self._penalties}

    def __bool__(self) -> bool:
        """Whether there is anything to add."""
        return bool(self._penalties)

    @torch.no_grad()
    def add_gradients(self, iteration: int) -> None:
        """Add the terms of a step to the gradients of the parameters that are trained; nothing waits for the device.

        Args:
            iteration: of the step, counted from the start of the stretch; the first is 0.

        Raises:
            PluginError: a penalty raises, or yields something else than terms of the network's relaxed layers.
        """
        progress = self._progress(iteration)
        with matmul_precision("float32"):
            for name, penalty in self._penalties.items():
                who = origin(penalty)
                with on_behalf_of(who):
                    for term in penalty.terms(self._layers, progress):
                        self._add(term, who)
                        self._sums[name].add_(term.value)

    def _add(self, term: Term, who: str) -> None:
        layer = self._layers.get(term.layer) if isinstance(term, Term) else None
        if layer is None:
            msg = f"{who}: terms() yielded {term!r:.100}, expected a Term of one of the layers {', '.join(map(repr, self._layers))}"
            raise PluginError(msg)
        parameters = dict(layer.named_parameters())
        for name, gradient in term.gradients.items():
            parameter = parameters.get(name)
            if parameter is None or gradient.shape != parameter.shape:
                wanted = "no such parameter" if parameter is None else f"a parameter of shape {tuple(parameter.shape)}"
                msg = f"{who}: terms() gave a gradient {tuple(gradient.shape)} for {name!r} of {term.layer!r}, which has {wanted}"
                raise PluginError(msg)
            if not parameter.requires_grad:
                continue
            if parameter.grad is None:
                parameter.grad = gradient.to(parameter).clone()
            else:
                parameter.grad.add_(gradient)

    def end_epoch(self, iteration: int, steps: int) -> dict[str, float]:
        """What the history says of the epoch that just ended, by column: ``parts.value``, the mean of the value over its steps, and others.

        Args:
            iteration: steps done.
            steps: of them in the epoch.
        """
        found: dict[str, float] = {}
        progress = self._progress(iteration)
        for name, penalty in self._penalties.items():
            found[f"{name}.value"] = self._sums[name].item() / steps
            self._sums[name].zero_()
            with on_behalf_of(origin(penalty)), torch.no_grad():
                found.update({f"{name}.{scalar}": float(value) for scalar, value in penalty.scalars(self._layers, progress).items()})
        return found

    def state(self) -> dict[str, torch.Tensor]:
        """What the penalties remember, and the running sums, by name."""
        tensors = {}
        for name, penalty in self._penalties.items():
            with on_behalf_of(origin(penalty)):
                remembered = penalty.state()
            tensors.update({f"{PREFIX}{name}.state.{key}": tensor for key, tensor in remembered.items()})
            tensors[f"{PREFIX}{name}.sum"] = self._sums[name]
        return tensors

    def load_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what :meth:`state` gave, among other tensors.

        Raises:
            CheckpointError: they are of other penalties.
        """
        for name, penalty in self._penalties.items():
            if f"{PREFIX}{name}.sum" not in tensors:
                msg = f"the saved state has nothing of the penalty {name!r}"
                raise CheckpointError(msg)
            self._sums[name].copy_(tensors[f"{PREFIX}{name}.sum"])
            prefix = f"{PREFIX}{name}.state."
            remembered = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
            if remembered:
                with on_behalf_of(origin(penalty)):
                    penalty.load_state(remembered)

    def _progress(self, iteration: int) -> Progress:
        return Progress(iteration=iteration, iterations=self.iterations, iterations_per_epoch=self._iterations_per_epoch)
