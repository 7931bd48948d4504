"""What the relaxations of the lattice have in common: lift, projection and optimizer state by the maps of :mod:`anarch_core.lattice`."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, cast

import attrs
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from anarch_core.constraint.maps import apply_per_axis
from anarch_core.lattice.families import CONV, AbstractFamily, incidence
from anarch_core.lattice.geometry import ConvGeometry, Convolution
from anarch_core.lattice.maps import contains, lift_map
from anarch_core.layers.base import Cost, RelaxedLayer
from anarch_core.layers.constrained import ConstrainedLayer
from anarch_core.layers.lattice_layer import LatticeLayer, conv_weight_view
from anarch_core.layers.reparametrised import ReparametrisedLayer
from anarch_core.layers.rooted import RootedLayer, why_not_rooted
from anarch_core.layers.sharded import ShardedLayer, narrow_convolution, plain_class
from anarch_core.plugin.records import TensorRole
from anarch_core.relaxation.base import AbstractRelaxation, Site

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""What PyTorch has of convolutions, by number of spatial dimensions, less one."""

COMPUTING = ("forward", "_conv_forward", "__call__", "_call_impl", "__getattr__", "__getattribute__", "weight", "bias")
"""Of a convolution's class, what decides on what it computes."""


def is_convolution(module: nn.Module) -> bool:
    """Whether a module computes what ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d`` does.

    That is one of them, or of a subclass that changes neither how it is called nor what its weight is.
    """
    base = next((kind for kind in CONVOLUTIONS if isinstance(module, kind)), None)
    return base is not None and all(getattr(type(module), name, None) is getattr(base, name, None) for name in COMPUTING)


def refusal_of_convolution(module: nn.Module, name: str) -> str | None:
    """Why a relaxation that knows convolutions with real weights cannot relax a module, as the end of a sentence; None if it can.

    Args:
        module: a candidate.
        name: of the relaxation, or of its family.
    """
    if not is_convolution(module):
        return f"it is a {type(module).__name__}, which {name} does not know how to embed"
    weight = cast(Convolution, module).weight
    if not isinstance(weight, nn.Parameter):
        return f"its weight is a {type(weight).__name__}, no parameter"
    return (
        None if weight.dtype.is_floating_point else f"its weight is {str(weight.dtype).removeprefix('torch.')}, and {name} knows real ones"
    )


class AbstractLatticeRelaxation(AbstractRelaxation):
    """A relaxation into one family of the lattice.

    Parents are convolutions, layers of a smaller family, and convolutions that another relaxation freed of zeros (ungrouped, grown).

    Attributes:
        layer_class: the layer of that family.
    """

    layer_class: ClassVar[type[LatticeLayer]]

    @property
    @abstractmethod
    def family(self) -> AbstractFamily:
        """The family that layers are lifted to."""

    def idle(self, site: Site) -> str | None:
        module = site.module.layer if isinstance(site.module, RootedLayer) else site.module
        if plain_class(module) is self.layer_class and cast(LatticeLayer, module).family == self.family:
            return f"it is a layer of {self.family.name} already"
        if isinstance(module, ConstrainedLayer) and not isinstance(module.free, _ConvNd):
            return f"it is a layer of {module.relaxation}, no convolution, and what is inside of it goes with it"
        return None

    def refusal(self, site: Site) -> str | None:
        if isinstance(site.module, ConstrainedLayer):
            return self._refusal_of_constrained(site.module, site)
        if isinstance(site.module, ReparametrisedLayer) and not site.module.linear:
            return f"it is a layer of {site.module.relaxation}, whose map depends on its input; project it first"
        if isinstance(site.module, LatticeLayer | ReparametrisedLayer):
            if contains(self.family, site.module.family, site.module.geometry):
                if isinstance(site.module, RootedLayer):
                    return why_not_rooted(site.module.first, site.module.geometry, self.family)
                return None
            name = site.module.relaxation
            return f"it is a layer of {name}, and {name} does not lie inside {self.family.name}; project it first"
        return refusal_of_convolution(site.module, self.family.name)

    def _refusal_of_constrained(self, module: ConstrainedLayer, site: Site) -> str | None:
        if not is_convolution(module.free):
            kind = type(module.free).__name__
            return f"it is a layer of {module.relaxation} made of a {kind}, which {self.family.name} does not know how to embed"
        return refusal_of_convolution(module.free, self.family.name) or why_not_rooted(module, site_geometry(site), self.family)

    def cost(self, site: Site) -> Cost:
        module = site.module
        cost = self.layer_class.cost(self.family, site_geometry(site), next(module.parameters()).element_size())
        kept = list(module.buffers(recurse=False)) if isinstance(module, ConstrainedLayer | RootedLayer) else []
        return attrs.evolve(cost, scratch_parameters=cost.scratch_parameters + sum(buffer.numel() for buffer in kept))

    @torch.no_grad()
    def lift(self, site: Site) -> RelaxedLayer:
        module, geometry = site.module, site_geometry(site)
        layer = lift_layer(_linear_map(module), geometry, self.family, self.layer_class)
        if isinstance(module, ConstrainedLayer | RootedLayer):
            first = module if isinstance(module, ConstrainedLayer) else module.unrelaxed()
            return RootedLayer(layer, first).train(module.training)
        return layer

    @torch.no_grad()
    def transport(
        self, site: Site, layer: RelaxedLayer, name: str, tensor: torch.Tensor, role: TensorRole
    ) -> dict[str, torch.Tensor] | None:
        if isinstance(layer, RootedLayer):
            state = transport_state(_linear_map(site.module), layer.layer, name.rpartition(".")[2], tensor, role)
            return None if state is None else {f"layer.{own}": values for own, values in state.items()}
        if isinstance(site.module, ReparametrisedLayer):
            return None
        parent = site.module
        if isinstance(layer, ShardedLayer) and is_convolution(parent):  # whose state every process has
            parent, tensor = narrow_convolution(cast(Convolution, parent), layer.own), tensor[layer.own.start : layer.own.stop]
        return transport_state(parent, cast(LatticeLayer, layer), name, tensor, role)


def _linear_map(module: nn.Module) -> nn.Module:
    """The convolution, or the layer of the lattice, that a module is as a linear map."""
    if isinstance(module, ConstrainedLayer):
        return module.free
    if isinstance(module, RootedLayer):
        return module.layer
    return module.lattice() if isinstance(module, ReparametrisedLayer) else module


def transport_state(
    parent: nn.Module, layer: LatticeLayer, name: str, tensor: torch.Tensor, role: TensorRole
) -> dict[str, torch.Tensor] | None:
    """Carry a tensor of optimizer state from a convolution, or a layer of a smaller family, to a layer of the lattice.

    Args:
        parent: the layer that was lifted.
        layer: what it was lifted to.
        name: of the parent's parameter.
        tensor: shaped as that parameter.
        role: see :meth:`anarch_core.relaxation.AbstractRelaxation.transport`.

    Returns:
        state by the name of the layer's parameter; None for a parameter that is neither weight nor bias.
    """
    if name == "bias":
        return {"bias": _transport_bias(parent, layer, tensor, role)}
    if name == "weight":
        return {"weight": _transport_weight(parent, layer, tensor, role)}
    return None


def site_geometry(site: Site) -> ConvGeometry:
    """Geometry of the layer at a site."""
    if isinstance(site.module, LatticeLayer | ReparametrisedLayer):
        return site.module.geometry
    return ConvGeometry.of(cast(Convolution, _linear_map(site.module)), site.input_shape[1:])


def family_of(module: nn.Module) -> AbstractFamily:
    """Family of a convolution or of a lattice layer."""
    return module.family if isinstance(module, LatticeLayer) else CONV


def view_of(module: nn.Module, geometry: ConvGeometry, tensor: torch.Tensor) -> torch.Tensor:
    """A tensor shaped as the module's weight, seen as [*labels, groups, outputs, inputs]."""
    if isinstance(module, LatticeLayer):
        return module.weight_view(tensor)
    return conv_weight_view(geometry, tensor)


@torch.no_grad()
def lift_layer(module: nn.Module, geometry: ConvGeometry, family: AbstractFamily, layer_class: type[LatticeLayer]) -> LatticeLayer:
    """The layer of ``family`` that equals a convolution, or a layer of a smaller family."""
    parent = cast(Convolution | LatticeLayer, module)
    layer = layer_class(family, geometry, parent.weight.detach())
    lift_map(family_of(parent), family, geometry).apply(view_of(parent, geometry, parent.weight), layer.weight_view(layer.weight))
    if layer.bias is not None and parent.bias is not None:
        layer.bias.copy_(layer.collect_bias(_position_bias(parent, geometry, parent.bias), mean=True))
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(cast(nn.Parameter, getattr(parent, name)).requires_grad)
    layer.unseen = _unseen(parent, geometry)
    return layer.train(parent.training)


def _unseen(parent: Convolution | LatticeLayer, geometry: ConvGeometry) -> torch.Tensor | None:
    """The part of a convolution's weight that its dense matrix does not show."""
    if isinstance(parent, LatticeLayer):
        return parent.unseen
    if all(incidence(CONV, axis).injective for axis in geometry.axes):
        return None
    counts = [incidence(CONV, axis) for axis in geometry.axes]
    view = conv_weight_view(geometry, parent.weight)
    seen = apply_per_axis([i.gram_inverse for i in counts], apply_per_axis([i.gram for i in counts], view))
    unseen = torch.zeros_like(parent.weight)
    conv_weight_view(geometry, unseen).copy_(view - seen)
    return unseen


def _position_bias(module: nn.Module, geometry: ConvGeometry, tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(module, LatticeLayer):
        return module.position_bias(tensor)
    return tensor.expand(*geometry.output_size, -1)


def _transport_bias(module: nn.Module, layer: LatticeLayer, tensor: torch.Tensor, role: TensorRole) -> torch.Tensor:
    geometry = layer.geometry
    values = _position_bias(module, geometry, tensor)
    if role == "weight":
        return layer.collect_bias(values, mean=True)
    for dim, axis in enumerate(geometry.axes):  # what was summed over positions is divided among them
        labels = torch.from_numpy(family_of(module).bias_labels(axis))
        counts = torch.bincount(labels)[labels].to(values.device, values.dtype)
        values = values / counts.view(-1, *[1] * (values.ndim - dim - 1))
    return layer.collect_bias(values, mean=False)


def _transport_weight(module: nn.Module, layer: LatticeLayer, tensor: torch.Tensor, role: TensorRole) -> torch.Tensor:
    """Averages of weights move as weights do, M m. What sums over shared weights is divided among them, G₂ M G₁⁺ m: Mᵀ of it is m again."""
    source, family, geometry = family_of(module), layer.family, layer.geometry
    values = view_of(module, geometry, tensor)
    if role != "weight":
        values = apply_per_axis([incidence(source, axis).gram_inverse for axis in geometry.axes], values)
    out = torch.zeros_like(layer.weight)
    view = layer.weight_view(out)
    lift_map(source, family, geometry).apply(values, view)
    if role != "weight":
        summed = apply_per_axis([incidence(family, axis).gram for axis in geometry.axes], view)
        if summed is not view:  # the family shares weights
            view.copy_(summed)
    if role == "square":
        # A weight that was held at zero has no history; zero would make its first steps unboundedly large.
        touched = out > 0
        out[~touched] = _mean(out[touched], layer)
    return out


def _mean(values: torch.Tensor, layer: LatticeLayer) -> torch.Tensor | float:
    """The mean of numbers of a layer, over all processes that hold it; 0 of none."""
    if isinstance(layer, ShardedLayer):
        total, count = layer.shards.totals([float(values.double().sum()), len(values)])
        return total / count if count else 0.0
    return values.mean() if len(values) else 0.0
