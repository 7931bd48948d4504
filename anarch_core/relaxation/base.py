"""The interface of relaxations: exact embeddings of a layer into a larger family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import attrs
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from anarch_core.layers.base import Cost, RelaxedLayer
from anarch_core.plugin.records import TensorRole


@attrs.frozen(kw_only=True)
class Site:
    """One layer to be relaxed, with what tracing an example input through the network told of it.

    Attributes:
        path: dotted path of the module, e.g. ``"features.0"``.
        module: the layer itself; never changed.
        input_shape: shape of its input without the batch dimension, [channels, *spatial]; () where it is not one tensor of one size.
        output_shape: shape of its output without the batch dimension; () where it is not one tensor.
        calls: how often it is called in one pass of the network.
        arguments: of its first call, by position and by name: tensors without numbers (on the device ``"meta"``), all else as it is. None
            where they are not known: when a checkpoint is loaded, for one.
    """

    path: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    calls: int = 1
    arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None


class AbstractRelaxation(ABC):
    """Replaces a layer by a member of a larger family that computes the same function.

    A relaxation is built with an instance of its option class (or None). It works on one layer at a time; walking the network, tracing
    input sizes, checking exactness and memory are done by :mod:`anarch_core.relaxation.surgery`. The way back, the drift and the default
    initialisation belong to the relaxed layer, a :class:`anarch_core.layers.base.RelaxedLayer`.

    Attributes:
        targets: types of modules that are candidates. One that it has nothing to do for is told (:meth:`idle`); one that is refused is an
            error that names it (:meth:`refusal`); none is passed over in silence. ``(nn.Module,)`` are all of a network, itself included.
        sized: whether a layer has to be called with one size of one tensor, and return a tensor, as layers with a weight for each position
            have; how often is then of no matter. False takes any arguments and outputs, and the number of calls has to be the same in
            training and in evaluation mode.
    """

    targets: ClassVar[tuple[type[nn.Module], ...]] = (_ConvNd, RelaxedLayer)
    sized: ClassVar[bool] = True

    def __init__(self, options: Any) -> None:
        self.options = options

    def idle(self, site: Site) -> str | None:
        """Why there is nothing to do for this layer, as the end of "nothing to relax in features.0: it has one group"; None if there is.

        Asked first of all, of every chosen layer, and no error: layers that are idle stay as they are, and are told of. So it is asked of
        layers, too, that could not be relaxed (with hooks, tied), that are called with several sizes (``site.input_shape`` is () then), and
        that are not called at all (``site.calls`` is 0).
        """
        return None

    def understands(self, module: nn.Module) -> bool:
        """Whether it knows what computes the weight of a module that is parametrized or has hooks, as those of ``torch.nn.utils.prune``.

        Such modules are refused otherwise, since a new layer would not run their hooks.
        """
        return False

    @abstractmethod
    def refusal(self, site: Site) -> str | None:
        """Why this layer cannot be relaxed, as the end of the sentence "features.0 cannot be relaxed: ..."; None if it can."""

    @abstractmethod
    def cost(self, site: Site) -> Cost:
        """What the relaxed layer will take. Must not allocate."""

    @abstractmethod
    def lift(self, site: Site) -> RelaxedLayer:
        """The relaxed layer, equal to ``site.module`` as a function. Shares no memory with it."""

    @abstractmethod
    def transport(
        self, site: Site, layer: RelaxedLayer, name: str, tensor: torch.Tensor, role: TensorRole
    ) -> dict[str, torch.Tensor] | None:
        """Carry a tensor of optimizer state over the switch.

        Args:
            site: the parent layer.
            layer: the relaxed layer.
            name: name of the parent's parameter, e.g. ``"weight"``.
            tensor: the state, shaped as that parameter.
            role: ``"weight"`` moves like the weight (an average of it), ``"gradient"`` like its gradient (momentum, which sums them),
                ``"square"`` like the square of its gradient.

        Returns:
            state for the relaxed layer's parameters by name, or None where it has to be reset. A parameter that several of the parent's
            became gets the sum of what they give: None for each of them where one cannot tell.
        """
