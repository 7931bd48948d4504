"""The weights of relaxed layers, whatever they are called, and which of their numbers the constrained layer could have had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs
import torch
from torch import nn

from anarch_core.constraint.parts import PARTS, Part
from anarch_core.errors import AnarchError, ProbeError, SurgeryError
from anarch_core.layers.base import RelaxedLayer, relaxed_layers
from anarch_core.layers.constrained import ConstrainedLayer, is_bias
from anarch_core.layers.lattice_layer import LatticeLayer

LOCAL: Sequence[Part] = tuple(part for part in PARTS if part != "off-local")
"""The parts that lie where the constraint allows other numbers than zero: in the receptive fields of a convolution."""


@attrs.frozen
class RelaxedWeight:
    """One parameter that a relaxation freed of a constraint.

    Attributes:
        path: of the layer in the network.
        layer: that it belongs to.
        name: in the layer.
    """

    path: str
    layer: RelaxedLayer
    name: str

    @property
    def full_name(self) -> str:
        """In the network."""
        return f"{self.path}.{self.name}" if self.path else self.name

    @property
    def is_bias(self) -> bool:
        """Whether it is a bias, which has no place and so is neither local nor off-local."""
        return is_bias(self.name)

    @property
    def tensor(self) -> torch.Tensor:
        """Its numbers, detached."""
        return self.layer.get_parameter(self.name).detach()

    def local(self) -> torch.Tensor:
        """See :func:`in_receptive_field`.

        Raises:
            ProbeError: the layer says that its parameters have no parts.
        """
        with _naming(self.path, self.layer):
            return in_receptive_field(self.layer, self.name)


def relaxed_weights(model: nn.Module) -> Iterator[RelaxedWeight]:
    """The parameters of the relaxed layers of a network, without those that the constrained layers have just so."""
    for path, layer in relaxed_layers(model).items():
        linked = {f"free.{name}" for link in layer.links for name in link.free} if isinstance(layer, ConstrainedLayer) else None
        for name, parameter in layer.named_parameters():
            if name in linked if linked is not None else _has_parts(layer, name, parameter.detach()):
                yield RelaxedWeight(path, layer, name)


def weighted_parts(
    path: str, layer: RelaxedLayer, tensors: Mapping[str, torch.Tensor], factors: Mapping[Part, float]
) -> dict[str, torch.Tensor]:
    """The sum of the parts of a layer's parameters, each times a number; see :meth:`~anarch_core.layers.RelaxedLayer.weighted`.

    Args:
        path: of the layer, for messages.
        layer: the layer.
        tensors: shaped as its parameters, by their names in it.
        factors: of the parts; a part without one is left out.

    Raises:
        ProbeError: the layer says that its parameters have no parts.
    """
    with _naming(path, layer):
        return layer.weighted(tensors, factors)


@contextmanager
def _naming(path: str, layer: RelaxedLayer) -> Iterator[None]:
    try:
        yield
    except SurgeryError as error:
        msg = f"parameters of {path or 'the network'}, relaxed by {layer.relaxation}, have no parts: {error}"
        raise ProbeError(msg) from error


def require_relaxed_layers(model: nn.Module, probe: str) -> None:
    """Refuse a network without relaxed layers.

    Args:
        model: the network.
        probe: that needs them, for the message.

    Raises:
        ProbeError: it has none.
    """
    if not relaxed_layers(model):
        msg = f"the probe {probe} needs relaxed layers, and this {type(model).__name__} has none; relax it first"
        raise ProbeError(msg)


def _has_parts(layer: RelaxedLayer, name: str, parameter: torch.Tensor) -> bool:
    """Whether anything but the shared part is ever made of a parameter; so, where the layer does not say."""
    if isinstance(layer, LatticeLayer) or parameter.numel() == 0:
        return True
    some = torch.arange(parameter.numel(), device=parameter.device).mul(0.618).remainder(1).to(parameter.dtype).view(parameter.shape)
    try:
        return bool((layer.keep(some, PARTS[:1], name) != some).any())
    except AnarchError:
        return True


def in_receptive_field(layer: RelaxedLayer, name: str = "weight") -> torch.Tensor:
    """Which numbers of a parameter are local: in the receptive fields of the convolution that the layer was.

    Of another layer, they are those that are not zero in every constrained layer.

    Returns:
        bool, shaped as the parameter.
    """
    parameter = layer.get_parameter(name).detach()
    if isinstance(layer, LatticeLayer) and name == "weight":
        if layer.family.local:
            return torch.ones((), dtype=torch.bool, device=parameter.device).expand(parameter.shape)
        if layer.family.dense:  # a quarter of what a mask of numbers would take
            return layer.keep(torch.ones_like(parameter, dtype=torch.bool), LOCAL)
    if isinstance(layer, ConstrainedLayer):
        link = next((link for link in layer.links if name.removeprefix("free.") in link.free), None)
        if link is None:
            return torch.ones((), dtype=torch.bool, device=parameter.device).expand(parameter.shape)
        return link.scattered(link.constraint.local())[name.removeprefix("free.")].to(parameter.device)
    return layer.keep(torch.ones_like(parameter), LOCAL, name).abs() > 0.5
