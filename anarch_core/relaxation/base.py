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
        input_shape: shape of its input without the batch dimension, [channels, *spatial].
        output_shape: shape of its output without the batch dimension.
    """

    path: str
    module: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


class AbstractRelaxation(ABC):
    """Replaces a layer by a member of a larger family that computes the same function.

    A relaxation is built with an instance of its option class (or None). It works on one layer at a time; walking the network, tracing
    input sizes, checking exactness and memory are done by :mod:`anarch_core.relaxation.surgery`. The way back, the drift and the default
    initialisation belong to the relaxed layer, a :class:`anarch_core.layers.base.RelaxedLayer`.

    Attributes:
        targets: types of modules that are candidates; a candidate that is refused is an error that names it, never passed over in silence.
    """

    targets: ClassVar[tuple[type[nn.Module], ...]] = (_ConvNd, RelaxedLayer)

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def refusal(self, site: Site) -> str | None:
        """Why this layer cannot be relaxed, as the end of the sentence "features.0 cannot be relaxed: ..."; None if it can."""

    def idle(self, site: Site) -> str | None:
        """Why there is nothing to do here, as the end of the sentence "features.0 has nothing to relax: ..."; None if there is."""
        return None

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
            state for the relaxed layer's parameters by name, or None where it has to be reset.
        """
