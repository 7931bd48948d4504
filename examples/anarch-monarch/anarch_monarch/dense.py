"""The dense layer that a Monarch layer becomes."""

from __future__ import annotations

import math

import torch
from torch import nn

from anarch_core.constraint import Drift
from anarch_core.errors import SurgeryError
from anarch_core.layers import RelaxedLayer
from anarch_monarch.layers import MonarchLinear


class MonarchDense(RelaxedLayer):
    """y = W x + b, where W was a Monarch matrix.

    Monarch matrices are no linear space, but W is one if each of its blocks has rank one, so the nearest keeps the largest singular value
    of every block, s uvᵀ (Dao et al. 2022, section 3.3). They are a cone, and smooth where no block is zero: the tangent space at the
    nearest matrix holds that matrix, and what W has beside it is orthogonal to all of the space. So the projector onto it, in each block
    Z ↦ uuᵀZ + Zvvᵀ − uuᵀZvvᵀ, gives parts of any tensor, and of W itself those that the drift measures.

    Attributes:
        weight: W, [out_features, in_features].
        bias: [out_features], or None.
        left: L of the Monarch layer that it came from.
        right: R of it. Factors (c L, R / c) of a block are one matrix, and these say which is meant on the way back.
    """

    relaxation = "monarch"
    left: torch.Tensor
    right: torch.Tensor

    def __init__(self, parent: MonarchLinear) -> None:
        super().__init__()
        self.blocks = parent.blocks
        trained = parent.left.requires_grad or parent.right.requires_grad
        self.weight = nn.Parameter(parent.matrix().detach(), requires_grad=trained)
        self.bias = _copied(parent.bias)
        self.register_buffer("left", parent.left.detach().clone())
        self.register_buffer("right", parent.right.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., out_features]."""
        return nn.functional.linear(x, self.weight, self.bias)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """PyTorch's default for a linear layer. It came from nowhere then, and both factors will weigh the same."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        for parameter in self.parameters():
            parameter.uniform_(-bound, bound)
        self.left.fill_(self.left.shape[1] ** -0.5)
        self.right.fill_(self.right.shape[2] ** -0.5)

    @torch.no_grad()
    def project(self) -> nn.Module:
        """The nearest Monarch layer. The factors of a block have the signs and the ratio of norms that they had."""
        (outputs, inputs), like = self.weight.shape, {"device": self.weight.device, "dtype": self.weight.dtype}
        monarch = nn.utils.skip_init(MonarchLinear, inputs, outputs, self.blocks, self.bias is not None, **like)
        u, s, v = self._nearest()
        left, right = self.left.double().transpose(1, 2), self.right.double().transpose(0, 1)
        norms = left.norm(dim=-1, keepdim=True), right.norm(dim=-1, keepdim=True)
        ratio = torch.where((norms[0] > 0) & (norms[1] > 0), norms[1] / norms[0], 1)
        sign = torch.where((right * v).sum(-1, keepdim=True) < 0, -1, 1)
        # Of a block that is zero still, and so has no factors, they are what they were.
        still = (s == 0) & (norms[0] * norms[1] == 0)
        monarch.left.copy_(torch.where(still, left, sign * (s / ratio).sqrt() * u).transpose(1, 2))
        monarch.right.copy_(torch.where(still, right, sign * (s * ratio).sqrt() * v).transpose(0, 1))
        monarch.bias = _copied(self.bias)
        for factor in (monarch.left, monarch.right):
            factor.requires_grad_(self.weight.requires_grad)
        return monarch.train(self.training)

    @torch.no_grad()
    def drift(self, reference: nn.Module | None = None) -> Drift:
        """The largest singular value of each block is shared, the others are not; Monarch matrices have no zeros to be given up.

        Raises:
            SurgeryError: the reference is not such a layer.
        """
        values = torch.linalg.svdvals(_blocked(self.weight.double(), self.blocks)).square()
        moved = before = None
        if reference is not None:
            if not isinstance(reference, MonarchDense) or reference.weight.shape != self.weight.shape or reference.blocks != self.blocks:
                msg = f"the reference must be a layer that monarch made of the same sizes, and is {reference}"
                raise SurgeryError(msg)
            (u, s, v), (u0, s0, v0) = self._nearest(), reference._nearest()
            difference = _outer(s * u, v) - _outer(s0 * u0, v0)
            moved, before = float(difference.square().sum()), float(s0.square().sum())
        shared, unshared = float(values[..., 0].sum()), float(values[..., 1:].sum())
        return Drift(shared=shared, unshared=unshared, off_local=0.0, moved=moved, reference=before)

    def split(self, tensor: torch.Tensor, name: str = "weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Along the tangent space at the nearest Monarch matrix, and across; a bias is shared. Linear in the tensor, for fixed weights."""
        if name == "bias":
            return tensor.clone(), torch.zeros_like(tensor), torch.zeros_like(tensor)
        u, _, v = (factor.unsqueeze(-2) for factor in self._nearest())
        across = _blocked(tensor.double(), self.blocks)
        across = across - u.mT * (u @ across)
        across = _assembled(across - (across @ v.mT) * v).to(tensor)
        return tensor - across, across, torch.zeros_like(tensor)

    @torch.no_grad()
    def carried(self, name: str, tensor: torch.Tensor, square: bool) -> torch.Tensor:
        """What a factor's state says of that of W; that of both factors is the sum.

        With block G of the gradient of W, the factors have the gradients G r and Gᵀ l. The smallest G that fits both best is carried.

        Args:
            name: ``"left"`` or ``"right"``.
            tensor: shaped as that factor.
            square: whether it holds squares of gradients, which add up over independent entries.
        """
        left, right = self.left.double().transpose(1, 2), self.right.double().transpose(0, 1)
        given = tensor.double().transpose(1, 2) if name == "left" else tensor.double().transpose(0, 1)
        own, other = (left, right) if name == "left" else (right, left)
        sizes = own.square().sum(-1, keepdim=True), other.square().sum(-1, keepdim=True)
        if square:
            result = _outer(given, torch.ones_like(other)) / _positive(sizes[1]).unsqueeze(-1) / 2
        else:
            along = (own * given).sum(-1, keepdim=True) / _positive(sizes[0])
            across = (given - along * own) / _positive(sizes[1])
            result = _outer(across + along * own / _positive(sizes[0] + sizes[1]), other)
        return _assembled(result if name == "left" else result.mT).to(tensor)

    @torch.no_grad()
    def _nearest(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Each block's u [j, k, l], s [j, k, 1] and v [j, k, i], in float64."""
        u, s, vh = torch.linalg.svd(_blocked(self.weight.double(), self.blocks), full_matrices=False)
        return u[..., 0], s[..., :1], vh[..., 0, :]

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, blocks={self.blocks}, bias={self.bias is not None}"


def _blocked(weight: torch.Tensor, blocks: int) -> torch.Tensor:
    """[out_features, in_features] to [j, k, l, i]."""
    return weight.unflatten(1, (blocks, -1)).unflatten(0, (-1, blocks)).permute(1, 2, 0, 3)


def _assembled(blocks: torch.Tensor) -> torch.Tensor:
    """[j, k, l, i] to [out_features, in_features]."""
    return blocks.permute(2, 0, 1, 3).flatten(2).flatten(0, 1)


def _copied(parameter: nn.Parameter | None) -> nn.Parameter | None:
    return None if parameter is None else nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)


def _outer(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return one.unsqueeze(-1) * other.unsqueeze(-2)


def _positive(number: torch.Tensor) -> torch.Tensor:
    return torch.where(number > 0, number, 1)
