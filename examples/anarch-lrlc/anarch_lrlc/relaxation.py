"""Trained convolutions as low-rank locally connected layers."""

from __future__ import annotations

from typing import cast

import torch

from anarch_core.lattice import ConvGeometry, Convolution
from anarch_core.layers import RelaxedLayer
from anarch_core.relaxation import AbstractRelaxation, Cost, Site, TensorRole, is_convolution
from anarch_lrlc.layer import LowRankLayer
from anarch_lrlc.options import LowRankOptions


class LowRankRelaxation(AbstractRelaxation):
    """conv -> lrlc. The banks are w + e_k with Σ_k e_k = 0, mixed alike, so that they sum to the convolution and yet differ.

    Were the banks identical they would get identical gradients, and the coefficients none at all: the layer would stay a convolution.
    """

    options: LowRankOptions

    def refusal(self, site: Site) -> str | None:
        if is_convolution(site.module):
            return None
        return f"it is a {type(site.module).__name__}, and lrlc is made from a convolution; project it first"

    def cost(self, site: Site) -> Cost:
        geometry, weight = _geometry(site), cast(Convolution, site.module).weight
        banks, positions = self.options.banks, [axis.positions for axis in geometry.axes]
        coefficients = banks * (geometry.positions if self.options.coefficients == "full" else sum(positions))
        biases = geometry.out_channels + sum(positions) if geometry.bias else 0
        products = banks * (weight.numel() + geometry.out_channels) * geometry.positions
        return Cost(
            parameters=banks * weight.numel() + coefficients + biases,
            flops=2 * products,
            itemsize=weight.element_size(),
        )

    @torch.no_grad()
    def lift(self, site: Site) -> RelaxedLayer:
        conv = cast(Convolution, site.module)
        layer = LowRankLayer(_geometry(site), self.options, conv.weight)
        banks = layer.bank_view(layer.banks.weight)
        scale = conv.weight.square().mean().sqrt()
        if scale == 0:
            scale = conv.weight.new_tensor(conv.weight[0].numel() ** -0.5)
        noise = torch.randn(banks.shape, generator=torch.Generator().manual_seed(self.options.seed), dtype=torch.float64)
        apart = noise.to(banks) * scale * self.options.spread
        banks.copy_(conv.weight.unflatten(0, (conv.groups, -1)).unsqueeze(1) + apart - apart.mean(1, keepdim=True))
        if layer.bias is not None and conv.bias is not None:
            layer.bias.copy_(conv.bias)
        trainable = conv.weight.requires_grad
        for name, parameter in layer.named_parameters():
            parameter.requires_grad_(conv.bias.requires_grad if "bias" in name and conv.bias is not None else trainable)
        return layer.train(conv.training)

    def transport(
        self, site: Site, layer: RelaxedLayer, name: str, tensor: torch.Tensor, role: TensorRole
    ) -> dict[str, torch.Tensor] | None:
        if name == "bias":
            return {"bias": tensor.clone()}
        if name != "weight":
            return None
        # Every bank is 1/K of the filter: it moves as the filter does, and gets 1/K of its gradient.
        share = {"weight": 1.0, "gradient": 1 / self.options.banks, "square": 1 / self.options.banks**2}[role]
        relaxed = cast(LowRankLayer, layer)
        out = torch.empty_like(relaxed.banks.weight, requires_grad=False)
        relaxed.bank_view(out).copy_(tensor.unflatten(0, (relaxed.geometry.groups, -1)).unsqueeze(1) * share)
        return {"banks.weight": out}


def _geometry(site: Site) -> ConvGeometry:
    return ConvGeometry.of(cast(Convolution, site.module), site.input_shape[1:])
