"""Layers of the lattice whose convolution was itself relaxed from something smaller: ungrouped, grown, unmasked."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import attrs
import torch
from torch import nn

from anarch_core.constraint.parts import Drift, Part
from anarch_core.errors import SurgeryError
from anarch_core.lattice.families import CONV, AbstractFamily, incidence
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.lattice.maps import lift_map
from anarch_core.layers.base import weighted_sum
from anarch_core.layers.constrained import ConstrainedLayer
from anarch_core.layers.hollow import filled, hollow_copy
from anarch_core.layers.lattice_layer import LatticeLayer, conv_weight_view
from anarch_core.layers.reparametrised import ReparametrisedLayer
from anarch_core.network import with_parameters


class RootedLayer(ReparametrisedLayer):
    """A layer of the lattice that goes back to the module its convolution was relaxed from.

    The constraint of that step only sets weights of the convolution to zero. So its shared part is the convolution nearest to the layer,
    without these weights, and all that lies where they are is off-local: outside the receptive fields that the first module had.

    Attributes:
        layer: of the lattice; its parameters are those of the whole, under names that begin with ``layer.``.
    """

    def __init__(self, layer: LatticeLayer, first: ConstrainedLayer) -> None:
        """A layer that goes back to what ``first`` stands for.

        Args:
            layer: lifted from the free module of ``first``, or from a layer that was.
            first: for which :func:`why_not_rooted` has no reason.
        """
        super().__init__(layer.geometry)
        self.relaxation = layer.relaxation
        self.layer = layer
        self._first = (hollow_copy(first),)  # in a tuple, it is no part of the layer
        for name, buffer in first.named_buffers(recurse=False):
            self.register_buffer(name, buffer.clone())

    @property
    def family(self) -> AbstractFamily:  # type: ignore[override]
        """Of the lattice, that the layer lies in."""
        return self.layer.family

    @property
    def first(self) -> ConstrainedLayer:
        """What the convolution was relaxed by; without numbers."""
        return self._first[0]

    def unrelaxed(self) -> ConstrainedLayer:
        """:attr:`first`, with the numbers that it kept beside its weights."""
        first = hollow_copy(self.first)
        for name, buffer in self.named_buffers(recurse=False):
            first._buffers[name] = buffer.clone()
        return first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer of the lattice."""
        y: torch.Tensor = self.layer(x)
        return y

    def lattice(self) -> LatticeLayer:
        """A copy of the layer of the lattice."""
        return self._with({name: parameter.detach().clone() for name, parameter in self.layer.named_parameters()})

    def reset_parameters(self) -> None:
        self.layer.reset_parameters()

    @torch.no_grad()
    def project(self) -> nn.Module:
        """The nearest module of the kind that was relaxed first."""
        conv = self.layer.project()
        values = {f"free.{name}": parameter for name, parameter in conv.named_parameters()}
        trained = {name: parameter.requires_grad for name, parameter in values.items()}
        first = filled(self.first, values, trained, dict(self.named_buffers(recurse=False)))
        return first.project().train(self.training)

    @torch.no_grad()
    def drift(self, reference: nn.Module | None = None) -> Drift:
        """The parts of the weight, as seen from the module that was relaxed first.

        Raises:
            SurgeryError: the reference is a layer of another kind.
        """
        if reference is not None and not isinstance(reference, RootedLayer):
            msg = f"expected the same {self.relaxation} layer at an earlier moment as the reference, got {type(reference).__name__}"
            raise SurgeryError(msg)
        inside, outside = self._pieces()
        before = None if reference is None else reference._with({"weight": reference._pieces()[0]})
        found, beyond = self._with({"weight": inside}).drift(before), self._with({"weight": outside}).drift()
        initial = None if found.initial is None or not _channels_alone(self.first) else _scaled(found.initial, self._share())
        return attrs.evolve(found, off_local=found.off_local + beyond.total, initial=initial)

    def _pieces(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The weight where the first module may have one, and the rest."""
        weight = self.layer.weight.detach()
        inside = weight * self._inside()
        return inside, weight - inside

    def _with(self, tensors: Mapping[str, torch.Tensor]) -> LatticeLayer:
        return cast(LatticeLayer, with_parameters(self.layer, tensors))

    def _inside(self) -> torch.Tensor:
        """Which weights of the layer stand for one that the first module may have, bool, shaped as the weight.

        Where that is a matter of channels, it is all that they have for each other: weights that meet in one pixel stay together.
        """
        geometry = self.geometry
        allowed = conv_weight_view(geometry, _allowed(self.first).to(self.layer.weight))
        inside = torch.zeros_like(self.layer.weight, requires_grad=False)
        if _channels_alone(self.first):
            self.layer.weight_view(inside).copy_(allowed[(0,) * len(geometry.axes)])
        else:
            lift_map(CONV, self.family, geometry).apply(allowed, self.layer.weight_view(inside))
        return inside != 0

    def _share(self) -> float:
        return float(_allowed(self.first).double().mean())

    @torch.no_grad()
    def split(self, tensor: torch.Tensor, name: str = "layer.weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        own = name.removeprefix("layer.")
        shared, unshared, off_local = self.layer.split(tensor, own)
        if own == "bias":
            return shared, unshared, off_local
        inside = self._inside()
        kept = shared * inside, unshared * inside
        return *kept, tensor - kept[0] - kept[1]

    @property
    def tells_parts_apart(self) -> bool:
        return self.layer.tells_parts_apart

    def gram(self, tensor: torch.Tensor, name: str = "layer.weight") -> torch.Tensor:
        return self.layer.gram(tensor, name.removeprefix("layer."))

    def keep(self, tensor: torch.Tensor, parts: Collection[Part], name: str = "layer.weight") -> torch.Tensor:
        return weighted_sum(self.split(tensor, name), dict.fromkeys(parts, 1.0))


def why_not_rooted(first: ConstrainedLayer, geometry: ConvGeometry, family: AbstractFamily) -> str | None:
    """Why a layer of the lattice cannot go back to what a convolution was relaxed from, as the end of a sentence; None if it can.

    Args:
        first: whose free module is the convolution.
        geometry: of the convolution.
        family: that the layer would be of.
    """
    name = first.relaxation
    links = {link.free[0]: link.constraint for link in first.links if len(link.free) == 1}
    if links.keys() != {link.free[0] for link in first.links} or not all(constraint.selects for constraint in links.values()):
        return f"it is a layer of {name}, in which weights of the convolution are equal; project it first"
    if "bias" in links and not bool(links["bias"].local().all()):
        return f"it is a layer of {name}, in which biases of the convolution are zero; project it first"
    if _channels_alone(first):
        return None
    folded = _folding(CONV, geometry)
    if folded is not None:
        return f"it is a layer of {name}, and with padding mode {folded!r} its taps meet those of {name} in one pixel; project it first"
    folded = _folding(family, geometry)
    if folded is not None:
        what = f"weights of {family.name} meet those of {name} in one pixel"
        return f"it is a layer of {name}, and with padding mode {folded!r} {what}; project it first"
    return None


def _folding(family: AbstractFamily, geometry: ConvGeometry) -> str | None:
    """The padding mode by which several weights meet in one pixel; None where none do."""
    return next((axis.mode for axis in geometry.axes if not incidence(family, axis).single), None)


def _allowed(first: ConstrainedLayer) -> torch.Tensor:
    """Which weights of the free convolution the first module may have, bool, shaped as the weight."""
    link = next((link for link in first.links if link.free == ("weight",)), None)
    return torch.ones(first.free.get_parameter("weight").shape, dtype=torch.bool) if link is None else link.constraint.local()


def _channels_alone(first: ConstrainedLayer) -> bool:
    """Whether a weight is allowed or not by its channels, whatever its tap."""
    allowed = _allowed(first).flatten(2)
    return bool((allowed == allowed[..., :1]).all())


def _scaled(initial: tuple[float, float, float], share: float) -> tuple[float, float, float]:
    """Expected squares where only a share of the channels' pairs was there before."""
    shared, unshared, off_local = initial
    return share * shared, share * unshared, off_local + (1 - share) * (shared + unshared)
