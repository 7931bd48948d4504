"""A locally connected layer of low spatial rank."""

from __future__ import annotations

import attrs
import torch
from torch import nn

from anarch_core.lattice import CONV, LCN, ConvGeometry, Convolution, incidence, lift_map
from anarch_core.layers import LatticeLayer, LocallyConnectedLayer, ReparametrisedLayer, conv_weight_view
from anarch_core.relaxation import lift_layer
from anarch_lrlc.options import LowRankOptions


class LowRankLayer(ReparametrisedLayer):
    """K filter banks, mixed anew at every position (Elsayed et al. 2020, section 3).

    y[o, i] = Σ_k a_k(i) (B_k * x)[o, i] + b[o] + Σ_axes c_axis[i_axis]

    As a locally connected layer its weights, seen as a matrix of positions and filter entries, have rank K at most.

    Attributes:
        banks: a convolution without bias of all B_k; weight [groups * K * out_channels / groups, in_channels / groups, *kernel].
        logits or logits0, logits1, ...: what the coefficients come from: one table [*positions, K], or for each axis one [positions, K].
        bias: [out_channels], or None.
        position_bias0, ...: [positions of the axis], or None.
    """

    family = LCN
    banks: Convolution
    bias: nn.Parameter | None

    def __init__(self, geometry: ConvGeometry, options: LowRankOptions, like: torch.Tensor) -> None:
        super().__init__(geometry)
        self.relaxation = "lrlc"
        self.options = options
        self.banks = attrs.evolve(geometry, out_channels=options.banks * geometry.out_channels, bias=False).convolution(like)
        if options.coefficients == "full":
            self.logits = nn.Parameter(like.new_empty((*geometry.output_size, options.banks)))
        self.register_parameter("bias", nn.Parameter(like.new_empty(geometry.out_channels)) if geometry.bias else None)
        for index, axis in enumerate(geometry.axes):
            if options.coefficients == "separable":
                self.register_parameter(f"logits{index}", nn.Parameter(like.new_empty((axis.positions, options.banks))))
            if geometry.bias:
                self.register_parameter(f"position_bias{index}", nn.Parameter(like.new_empty(axis.positions)))
        self.share()

    @torch.no_grad()
    def share(self) -> None:
        """Mix the banks alike everywhere, 1/K of each, and add no bias of position: a convolution with the mean bank."""
        tables = [parameter for name, parameter in self.named_parameters() if name.startswith("logits")]
        for table in tables:
            table.fill_(0.0 if self.options.normalisation == "softmax" else 1 / (self.options.banks * len(tables)))
        for name, parameter in self.named_parameters():
            if name.startswith("position_bias"):
                parameter.zero_()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Every bank and the bias as PyTorch initialises a convolution; coefficients alike."""
        self.banks.reset_parameters()
        if self.bias is not None:
            bound = self.banks.weight[0].numel() ** -0.5
            self.bias.uniform_(-bound, bound)
        self.share()

    def bank_view(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor shaped as the weight of ``banks``, seen as [groups, K, out_channels / groups, in_channels / groups, *kernel]."""
        groups, outputs, inputs = self.geometry.channel_block
        return tensor.view(groups, self.options.banks, outputs, inputs, *tensor.shape[2:])

    def coefficients(self) -> torch.Tensor:
        """a_k(i), [*positions, K]."""
        logits = self.logits if self.options.coefficients == "full" else self._sum_over_axes("logits")
        return logits.softmax(-1) if self.options.normalisation == "softmax" else logits

    def _sum_over_axes(self, name: str) -> torch.Tensor:
        axes = len(self.geometry.axes)
        tables: list[torch.Tensor] = [getattr(self, f"{name}{axis}") for axis in range(axes)]  # under torch.func they are no parameters
        shapes = [[-1 if other == axis else 1 for other in range(axes)] for axis in range(axes)]
        aligned = [table.view(*shape, *table.shape[1:]) for shape, table in zip(shapes, tables, strict=True)]
        return sum(aligned[1:], aligned[0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, *input size] to [batch, out_channels, *output size]."""
        x, single = self.batched(x)
        groups, outputs, _ = self.geometry.channel_block
        responses = self.banks(x).unflatten(1, (groups, self.options.banks, outputs))
        y = (responses * self.coefficients().movedim(-1, 0).unsqueeze(1)).sum(2).flatten(1, 2)
        if self.bias is not None:
            y = y + self.bias.view(-1, *[1] * len(self.geometry.axes)) + self._sum_over_axes("position_bias")
        return y.squeeze(0) if single else y

    @torch.no_grad()
    def lattice(self) -> LatticeLayer:
        """The locally connected layer with the weights Σ_k a_k(i) B_k."""
        geometry, a = self.geometry, self.coefficients()
        banks = self.bank_view(self.banks.weight)
        conv = geometry.convolution(banks).train(self.training)
        mean = torch.einsum("k,gk...->g...", a.flatten(0, -2).mean(0), banks)
        conv.weight.copy_(mean.flatten(0, 1)).requires_grad_(self.banks.weight.requires_grad)
        if conv.bias is not None and self.bias is not None:
            conv.bias.copy_(self.bias).requires_grad_(self.bias.requires_grad)
        layer = lift_layer(conv, geometry, LCN, LocallyConnectedLayer)
        if layer.bias is not None:
            layer.bias.add_(self._sum_over_axes("position_bias"))
        for dim, axis in enumerate(geometry.axes):
            a = a.index_select(dim, torch.from_numpy(incidence(LCN, axis).pair // axis.size).to(a.device))
        weight = torch.zeros_like(layer.weight)
        for bank, share in zip(banks.unbind(1), a.unbind(-1), strict=True):
            lifted = torch.zeros_like(weight)
            lift_map(CONV, LCN, geometry).apply(conv_weight_view(geometry, bank.flatten(0, 1)), layer.weight_view(lifted))
            weight.add_(lifted * share[..., None, None, None])
        layer.weight.copy_(weight)
        return layer

    @torch.no_grad()
    def split(self, tensor: torch.Tensor, name: str = "banks.weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Parts of a parameter: any banks mixed alike everywhere are a convolution, so only what varies with the position is unshared."""
        zero = torch.zeros_like(tensor)
        if name.startswith("logits"):
            shared = tensor.flatten(0, -2).mean(0).expand_as(tensor).clone()
        elif name.startswith("position_bias"):
            shared = tensor.mean().expand_as(tensor).clone()
        else:
            shared = tensor.clone()
        return shared, tensor - shared, zero

    def extra_repr(self) -> str:
        o = self.options
        return f"{super().extra_repr()}, banks={o.banks}, coefficients={o.coefficients}, normalisation={o.normalisation}"
