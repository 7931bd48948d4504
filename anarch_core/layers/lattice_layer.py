"""A layer of one family of the lattice."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection

import torch
from torch import nn

from anarch_core.constraint.maps import apply_per_axis
from anarch_core.constraint.parts import PARTS, Drift, Part
from anarch_core.errors import SurgeryError
from anarch_core.lattice.drift import lattice_drift, shared_part, write_local_parts
from anarch_core.lattice.families import CONV, AbstractFamily, incidence
from anarch_core.lattice.geometry import ConvGeometry
from anarch_core.lattice.maps import lift_map, project_labels
from anarch_core.layers.base import Cost
from anarch_core.layers.placed import PlacedLayer
from anarch_core.ops.by_position import ByPosition, readable
from anarch_core.ops.piece import Piece


class LatticeLayer(PlacedLayer):
    """A layer of one family of the lattice, at a fixed input size.

    Attributes:
        family: which weights there are and which are shared.
        weight: in the layout of the subclass.
        bias: in the layout of the subclass, or None.
        unseen: what of the convolution's weight no output depends on at this input size (taps that only ever read padding),
            [out_channels, in_channels / groups, *kernel], kept so that projecting back restores it; None where every tap is seen.
    """

    family: AbstractFamily
    weight: nn.Parameter
    bias: nn.Parameter | None
    unseen: torch.Tensor | None

    def __init__(self, family: AbstractFamily, geometry: ConvGeometry, like: torch.Tensor) -> None:
        super().__init__(geometry)
        self.relaxation = family.name
        self.family = family
        self.weight = nn.Parameter(like.new_zeros(self.weight_shape(family, geometry)))
        self.bias = nn.Parameter(like.new_zeros(self.bias_shape(family, geometry))) if geometry.bias else None
        self.register_buffer("unseen", None)

    @classmethod
    @abstractmethod
    def weight_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        """Shape of the weight."""

    @classmethod
    @abstractmethod
    def bias_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        """Shape of the bias."""

    @classmethod
    def flops(cls, family: AbstractFamily, geometry: ConvGeometry) -> int:
        """Floating-point operations of one forward pass of one sample, a multiply-add counting two; here, every weight is used once."""
        return 2 * math.prod(cls.weight_shape(family, geometry))

    @classmethod
    def cost(cls, family: AbstractFamily, geometry: ConvGeometry, itemsize: int) -> Cost:
        """What a layer will take, from its shapes alone.

        Args:
            family: which weights there are.
            geometry: of the convolution it stands for.
            itemsize: bytes per number.
        """
        biases = math.prod(cls.bias_shape(family, geometry)) if geometry.bias else 0
        parameters = math.prod(cls.weight_shape(family, geometry)) + biases
        return Cost(parameters=parameters, flops=cls.flops(family, geometry), itemsize=itemsize)

    @abstractmethod
    def weight_view(self, tensor: torch.Tensor) -> torch.Tensor:
        """A weight-shaped tensor seen as [*labels, groups, outputs, inputs], without a copy (inputs and outputs of one group).

        Everything that asks where a weight stands goes through it, so a subclass may keep its weight in any layout.
        """

    @abstractmethod
    def bias_view(self, tensor: torch.Tensor) -> torch.Tensor:
        """A bias-shaped tensor seen as [*bias labels, out_channels], without a copy."""

    @abstractmethod
    def weight_bound(self) -> torch.Tensor:
        """Half-width of the uniform default initialisation, 1/sqrt(fan in), broadcastable to the weight."""

    def reset_parameters(self) -> None:
        """PyTorch's default: uniform in ±1/sqrt(fan in), where the fan in counts the pixels that are really read."""
        with torch.no_grad():
            self.weight.uniform_(-1, 1).mul_(self.weight_bound().to(self.weight))
            if self.bias is not None:
                self.bias.uniform_(-1, 1).mul_(self.bias_bound().to(self.bias))

    @abstractmethod
    def bias_bound(self) -> torch.Tensor:
        """Half-width of the uniform default initialisation of the bias, broadcastable to it."""

    def by_position(self) -> Piece | None:
        """The layer as one product for all its positions, to be given by :meth:`piece`; None where its geometry has none."""
        if not readable(self.family, self.geometry):
            return None
        return ByPosition(self.family, self.geometry, self.weight, self.bias, self.weight_view, self.bias_view)

    @torch.no_grad()
    def project(self) -> nn.Module:
        """The convolution whose dense matrix is nearest; taps that no output depends on keep the parent's value."""
        conv = self.geometry.convolution(self.weight)
        target = conv_weight_view(self.geometry, conv.weight)
        target.copy_(project_labels(CONV, self.family, self.geometry, self.weight_view(self.weight)))
        if self.unseen is not None:
            conv.weight.add_(self.unseen)
        conv.weight.requires_grad_(self.weight.requires_grad)
        if conv.bias is not None and self.bias is not None:
            conv.bias.copy_(self.mean_bias(self.bias))
            conv.bias.requires_grad_(self.bias.requires_grad)
        return conv.train(self.training)

    @torch.no_grad()
    def drift(self, reference: nn.Module | None = None) -> Drift:
        """The parts of the weight; the bias is left out, as in the paper.

        Raises:
            SurgeryError: the reference is not a layer of the lattice.
        """
        if reference is not None and not isinstance(reference, LatticeLayer):
            msg = f"expected the same layer at an earlier moment as the reference, got {type(reference).__name__}"
            raise SurgeryError(msg)
        bound = self.weight_bound().to(self.weight.device).expand(self.weight.shape)
        return lattice_drift(
            self.family,
            self.geometry,
            self.weight_view(self.weight.detach()),
            self.weight_view(bound),
            off_local=self.off_local_norm2() if self.family.dense else None,
            start=None if reference is None else reference.shared_part(),
        )

    @torch.no_grad()
    def shared_part(self) -> torch.Tensor:
        """The convolution nearest to the weight, [*taps, groups, outputs, inputs], float64."""
        return shared_part(self.family, self.geometry, self.weight_view(self.weight.detach()))

    @torch.no_grad()
    def off_local_norm2(self) -> float:
        """Squared norm of what lies outside the receptive fields and between different groups, for a dense family.

        Here by blanking the rest of a copy; overridden where the layout allows less.
        """
        outside: tuple[Part, ...] = ("off-local",)
        blocks = torch.split(self.keep(self.weight, outside).flatten(), 1 << 20)
        return sum((float(block.double().square().sum()) for block in blocks), 0.0)

    @property
    def tells_parts_apart(self) -> bool:
        return self.family.dense or self.family.local or all(incidence(self.family, axis).single for axis in self.geometry.axes)

    @torch.no_grad()
    def split(self, tensor: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Orthogonal parts of a tensor shaped as a parameter: (shared, unshared, off-local); they add up to it.

        For families whose weights are entries of the dense matrix (efcn, lcn) the parts are orthogonal as they stand; for the others in
        the norm of the dense matrix, where a weight counts as often as it is shared. See :attr:`tells_parts_apart`.
        """
        zero = torch.zeros_like(tensor)
        if name == "bias":
            shared = self.spread_bias(self.mean_bias(tensor))
            return shared, tensor - shared, zero
        if self.family.dense:
            shared, unshared, off_local = (self.keep(tensor, (part,)) for part in PARTS)
            return shared, unshared, off_local
        shared = zero.clone()
        view = self.weight_view(tensor)
        lift_map(CONV, self.family, self.geometry).apply(project_labels(CONV, self.family, self.geometry, view), self.weight_view(shared))
        return (shared, tensor - shared, zero) if self.family.local else (shared, zero, tensor - shared)

    @torch.no_grad()
    def keep(self, tensor: torch.Tensor, parts: Collection[Part], name: str = "weight") -> torch.Tensor:
        """The sum of some of the parts; of a dense weight without making the others."""
        if not self.family.dense or name != "weight":
            return super().keep(tensor, parts, name)
        source = tensor.detach()
        kept = source.clone() if "off-local" in parts else torch.zeros_like(source)
        write_local_parts(self.geometry, self.weight_view(source), self.weight_view(kept), parts)
        return kept

    @torch.no_grad()
    def gram(self, tensor: torch.Tensor, name: str = "weight") -> torch.Tensor:
        """AᵀA times a tensor shaped as a parameter: times share counts, where no entry of the matrix has two labels."""
        if name == "bias":
            return tensor * self.collect_bias(tensor.new_ones((*self.geometry.output_size, self.geometry.out_channels)), mean=False)
        if self.family.dense:
            return tensor
        out = torch.empty_like(tensor)
        grams = [incidence(self.family, axis).gram for axis in self.geometry.axes]
        self.weight_view(out).copy_(apply_per_axis(grams, self.weight_view(tensor)))
        return out

    def mean_bias(self, tensor: torch.Tensor) -> torch.Tensor:
        """The shared bias nearest to a bias-shaped tensor, [out_channels]."""
        return self.position_bias(tensor).flatten(0, -2).mean(0)

    def spread_bias(self, shared: torch.Tensor) -> torch.Tensor:
        """A shared bias [out_channels] in the layout of this layer."""
        out = shared.new_empty(self.bias_shape(self.family, self.geometry))
        self.bias_view(out).copy_(shared)
        return out

    def position_bias(self, tensor: torch.Tensor) -> torch.Tensor:
        """A bias-shaped tensor spread over the positions, [*positions, out_channels]."""
        values = self.bias_view(tensor)
        for dim, axis in enumerate(self.geometry.axes):
            values = values.index_select(dim, torch.from_numpy(self.family.bias_labels(axis)).to(values.device))
        return values

    def collect_bias(self, values: torch.Tensor, *, mean: bool) -> torch.Tensor:
        """The adjoint of :meth:`position_bias`: sums (or means) of [*positions, out_channels] over the positions of each bias label."""
        for dim, axis in enumerate(self.geometry.axes):
            labels = torch.from_numpy(self.family.bias_labels(axis))
            counts = torch.bincount(labels)
            sums = values.new_zeros((*values.shape[:dim], len(counts), *values.shape[dim + 1 :]))
            sums = sums.index_add_(dim, labels.to(values.device), values)
            if mean:
                sums = sums / counts.to(values).view(-1, *[1] * (values.ndim - dim - 1))
            values = sums
        out = values.new_empty(self.bias_shape(self.family, self.geometry))
        self.bias_view(out).copy_(values)
        return out


def conv_weight_view(geometry: ConvGeometry, tensor: torch.Tensor) -> torch.Tensor:
    """A convolution's weight-shaped tensor seen as [*kernel, groups, outputs, inputs]."""
    groups, outputs, inputs = geometry.channel_block
    split = tensor.view(groups, outputs, inputs, *tensor.shape[2:])
    return split.permute(*range(3, split.ndim), 0, 1, 2)


def fan_in(family: AbstractFamily, geometry: ConvGeometry) -> torch.Tensor:
    """Numbers that each output position sums over, [*positions], float64."""
    counts = torch.ones((), dtype=torch.float64, device="cpu")
    for axis in geometry.axes:
        pairs = incidence(family, axis)
        distinct = torch.unique(torch.from_numpy(pairs.pair))
        per_position = torch.bincount(distinct // axis.size, minlength=axis.positions).double()
        counts = counts.unsqueeze(-1) * per_position
    inputs = geometry.in_channels if family.across_groups else geometry.in_channels // geometry.groups
    return counts * inputs


def inverse_root(count: float | torch.Tensor) -> torch.Tensor:
    """1/sqrt(count), and 0 where nothing is counted."""
    value = count.double() if isinstance(count, torch.Tensor) else torch.tensor(count, dtype=torch.float64, device="cpu")
    return torch.where(value > 0, value.clamp(min=1).rsqrt(), torch.zeros_like(value))
