"""Trained convolutions as gated positional self-attention."""

from __future__ import annotations

from typing import cast

import torch

from anarch_core.lattice import ConvGeometry, Convolution
from anarch_core.layers import RelaxedLayer
from anarch_core.relaxation import AbstractRelaxation, Cost, Site, TensorRole, is_convolution
from anarch_gpsa.layer import AttentionLayer
from anarch_gpsa.options import AttentionOptions


class AttentionRelaxation(AbstractRelaxation):
    """conv -> gpsa, with closed gates."""

    options: AttentionOptions

    def refusal(self, site: Site) -> str | None:
        if is_convolution(site.module):
            return None
        return f"it is a {type(site.module).__name__}, and gpsa is made from a convolution; project it first"

    def cost(self, site: Site) -> Cost:
        geometry, weight = _geometry(site), cast(Convolution, site.module).weight
        heads, channels = weight[0, 0].numel(), geometry.in_channels
        positions, pixels, dim = geometry.positions, geometry.pixels, self.options.head_dim
        scores = heads * dim * (channels * (positions + pixels) + positions * pixels)
        values = heads * positions * pixels * channels + 2 * weight.numel() * positions
        own = sum(parameter.numel() for parameter in site.module.parameters())
        return Cost(
            parameters=own + heads * (2 * dim * channels + 1),
            scratch_parameters=heads * positions * pixels + positions,
            flops=2 * (scores + values),
            itemsize=weight.element_size(),
        )

    @torch.no_grad()
    def lift(self, site: Site) -> RelaxedLayer:
        conv = cast(Convolution, site.module)
        layer = AttentionLayer(_geometry(site), self.options, conv.weight.detach())
        layer.requires_grad_(conv.weight.requires_grad)
        for name, parameter in conv.named_parameters():
            layer.values.get_parameter(name).copy_(parameter).requires_grad_(parameter.requires_grad)
        return layer.train(conv.training)

    def transport(
        self, site: Site, layer: RelaxedLayer, name: str, tensor: torch.Tensor, role: TensorRole
    ) -> dict[str, torch.Tensor] | None:
        return {f"values.{name}": tensor.clone()}  # behind closed gates the values are the convolution's weights, whatever the role


def _geometry(site: Site) -> ConvGeometry:
    return ConvGeometry.of(cast(Convolution, site.module), site.input_shape[1:])
