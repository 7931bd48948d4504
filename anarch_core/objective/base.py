"""The interface of objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import attrs

if TYPE_CHECKING:
    import torch

Reduction = Literal["mean", "sum", "none"]
"""Of the losses of samples: their mean or sum, a scalar, or all of them, [n]."""


@attrs.frozen(kw_only=True)
class Metric:
    """A score beside the loss.

    Attributes:
        name: key of history rows and results, as in ``test_<name>``.
        label: how axes and tables call it.
        unit: ``"%"``, or empty for a number without one.
        higher_is_better: its direction.
        digits: after the decimal point, in tables.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool = True
    digits: int = 1

    def text(self, value: float | None) -> str:
        """A value with its unit: ``"93.1 %"``."""
        return "–" if value is None else f"{value:.{self.digits}f} {self.unit}".rstrip()


class AbstractObjective(ABC):
    """A loss, and what goes with it.

    An objective is built with an instance of its option class (or None). It is a function of what it is given alone. The loss is that of
    samples: the risk of a data set is their mean, whatever the batches. Gradients, Hessians and the generalised Gauss-Newton matrix
    (Schraudolph 2002), ``J' (d2 loss / d outputs2) J``, are taken of it by autograd, so it must be differentiable twice in the outputs.

    Attributes:
        metrics: what networks are scored by beside the loss; the first is what runs are compared by.
        loss_label: how axes call the loss.
        loss_unit: ``"nats"``, or empty.
        takes: the targets, in words that complete a message: ``"int64 [n], the number of its class for each sample"``.
        gives: the outputs of a network, likewise: ``"one number for each class of each sample"``.
    """

    metrics: ClassVar[Sequence[Metric]]
    loss_label: ClassVar[str] = "loss"
    loss_unit: ClassVar[str] = ""
    takes: ClassVar[str]
    gives: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        owner = {
            name: next(level for level, each in enumerate(cls.__mro__) if name in vars(each)) for name in ("loss", "loss_and_gradient")
        }
        if owner["loss"] < owner["loss_and_gradient"]:  # the gradient that is inherited is that of another loss
            cls.loss_and_gradient = AbstractObjective.loss_and_gradient  # type: ignore[method-assign]

    def __init__(self, options: Any = None) -> None:
        self.options = options

    @property
    def metric(self) -> Metric:
        """The score that runs are compared by."""
        return self.metrics[0]

    @property
    def directions(self) -> dict[str, bool]:
        """Whether higher is better, of the loss and of every metric by its name."""
        return {"loss": False, **{metric.name: metric.higher_is_better for metric in self.metrics}}

    @abstractmethod
    def problem(self, targets: torch.Tensor, classes: int) -> str | None:
        """What is wrong with the targets of a part of the data, to complete a message; None if nothing is.

        Args:
            targets: [n, ...], any dtype, at least one.
            classes: of the data; 0 where they have none.
        """

    @abstractmethod
    def output_shape(self, targets: torch.Tensor, classes: int) -> tuple[int, ...]:
        """Shape of a network's output for one sample; its first size is the number that models are built with.

        Args:
            targets: of the data, [n, ...].
            classes: likewise; 0 where they have none.
        """

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Reduction = "mean") -> torch.Tensor:
        """Losses of samples.

        Args:
            outputs: of the network, [n, *output_shape].
            targets: [n, ...].
            reduction: see :data:`Reduction`.
        """

    def loss_and_gradient(self, outputs: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean loss, a scalar, and its gradient by the outputs, neither with a graph; by autograd unless overridden. New in 1.3.

        A class that overrides :meth:`loss` alone has the gradient of its own loss, whatever it inherits.

        Args:
            outputs: of the network, [n, *output_shape].
            targets: [n, ...].
        """
        import torch

        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            loss = self.loss(leaf, targets)
            (gradient,) = torch.autograd.grad(loss, leaf)
        return loss.detach(), gradient

    @abstractmethod
    def tally(self, outputs: torch.Tensor, targets: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What the metrics are computed from, summed over the samples of a batch: tensors of fixed shapes, by name, int64 or float64.

        Taken after every step of training, so it must not wait for the device.
        """

    @abstractmethod
    def scores(self, totals: Mapping[str, torch.Tensor], samples: int) -> Mapping[str, float]:
        """The metrics by name, nan where one is not defined.

        Args:
            totals: sums of :meth:`tally` over batches.
            samples: in these batches.
        """

    def decisions(self, outputs: torch.Tensor) -> torch.Tensor | None:
        """What the network decides, one integer for each sample, [n]; None where outputs are no such decisions."""
        return None

    def mismatch(self, outputs: torch.Tensor, targets: torch.Tensor) -> str | None:
        """What targets ask of outputs of the right shape, and do not find there, in a sentence; None if nothing is missing.

        Args:
            outputs: of some samples.
            targets: of all samples that are measured.
        """
        return None


def reduced(losses: torch.Tensor, reduction: Reduction) -> torch.Tensor:
    """Losses of samples, [n], as asked for."""
    return losses.mean() if reduction == "mean" else losses.sum() if reduction == "sum" else losses
