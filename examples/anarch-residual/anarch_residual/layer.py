"""A convolution and, beside it, a dense layer."""

from __future__ import annotations

import torch

from anarch_core.lattice import EFCN, ConvGeometry, Convolution
from anarch_core.layers import FullyConnectedLayer, LatticeLayer, ReparametrisedLayer
from anarch_core.relaxation import lift_layer


class ResidualLayer(ReparametrisedLayer):
    """y = A * x + B x: the fully connected layer W = Φ(A) + B, where Φ(A) is the matrix of the convolution A (Finzi et al. 2021).

    The two are not told apart by the function: what B holds of a convolution could as well be in A. See :meth:`canonicalise`.

    Attributes:
        shared: the convolution A, with its bias.
        residual: the dense layer B, with a bias for every output.
    """

    family = EFCN
    shared: Convolution
    residual: FullyConnectedLayer

    def __init__(self, geometry: ConvGeometry, like: torch.Tensor) -> None:
        super().__init__(geometry)
        self.relaxation = "residual"
        self.shared = geometry.convolution(like)
        self.residual = FullyConnectedLayer(EFCN, geometry, like.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, *input size] to [batch, out_channels, *output size]."""
        x, single = self.batched(x)
        y: torch.Tensor = self.shared(x) + self.residual(x)
        return y.squeeze(0) if single else y

    def reset_parameters(self) -> None:
        """Both pathways by PyTorch's default."""
        self.shared.reset_parameters()
        self.residual.reset_parameters()

    @torch.no_grad()
    def lattice(self) -> LatticeLayer:
        """The fully connected layer W = Φ(A) + B."""
        layer = lift_layer(self.shared, self.geometry, EFCN, FullyConnectedLayer)
        for name, parameter in layer.named_parameters():
            parameter.add_(self.residual.get_parameter(name))
        return layer

    @torch.no_grad()
    def canonicalise(self) -> None:
        """Move into A what B holds of a convolution: A ← A + Φ⁺B, B ← B − ΦΦ⁺B. The function stays; B becomes as small as it can."""
        held = self.residual.project()
        lifted = lift_layer(held, self.geometry, EFCN, FullyConnectedLayer)
        for name, parameter in self.shared.named_parameters():
            parameter.add_(held.get_parameter(name))
            self.residual.get_parameter(name).sub_(lifted.get_parameter(name))

    @torch.no_grad()
    def split(self, tensor: torch.Tensor, name: str = "residual.weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """A is shared; B has all three parts, as in the fully connected layer."""
        pathway, _, own_name = name.partition(".")
        if pathway == "residual":
            return self.residual.split(tensor, own_name)
        return tensor.clone(), torch.zeros_like(tensor), torch.zeros_like(tensor)
