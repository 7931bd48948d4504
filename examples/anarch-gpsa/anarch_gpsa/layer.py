"""Attention with one head for every tap of a convolution."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from anarch_core.lattice import EFCN, Axis, ConvGeometry, Convolution
from anarch_core.layers import FullyConnectedLayer, LatticeLayer, ReparametrisedLayer
from anarch_core.relaxation import lift_layer
from anarch_gpsa.options import AttentionOptions

QUERY_KEY_STD = 0.02
"""Of queries' and keys' initial weights, as in vision transformers: attention to content starts nearly uniform, but not on a saddle."""

MOMENTUM = 0.1
"""Weight of a batch in the running mean of the attention, as in batch normalisation."""


class AttentionLayer(ReparametrisedLayer):
    """y_i = b + Σ_h Σ_j A^h_ij W_h x_j with A^h = P^h + g_h (S^h − P^h), one head h for every tap of the kernel.

    * P^h attends to the pixel that tap h reads from position i: softmax attention to relative positions in its limit of full sharpness.
      Where the tap reads padding it attends to a null key, whose value is zero.
    * S^h attends to content: softmax over all pixels j of q^h(x_c) · k^h(x_j) / √head_dim, c the centre of the receptive field of i.
    * W_h is the slice of the convolution's weight at that tap, of full rank.
    * g_h = tanh(gate_h) is linear around 0, where attention is positional and the layer is the convolution. A sigmoid would have to be
      saturated to be so exact, and would then have no gradient.

    The positional part is computed as what it is, a convolution with the weights (1 − g_h) W_h.

    Attributes:
        values: convolution that holds the W_h and the bias.
        query: [heads, head_dim, in_channels].
        key: [heads, head_dim, in_channels].
        gate: [*kernel].
        attention: running mean of S over images, [heads, positions, pixels]; the drift and the way back go by it.
    """

    family = EFCN
    linear = False
    values: Convolution
    attention: torch.Tensor
    anchors: torch.Tensor

    def __init__(self, geometry: ConvGeometry, options: AttentionOptions, like: torch.Tensor) -> None:
        super().__init__(geometry)
        self.relaxation = "gpsa"
        self.options = options
        self.values = geometry.convolution(like)
        kernel = [axis.kernel for axis in geometry.axes]
        heads = math.prod(kernel)
        self.query = nn.Parameter(like.new_empty((heads, options.head_dim, geometry.in_channels)))
        self.key = nn.Parameter(like.new_empty((heads, options.head_dim, geometry.in_channels)))
        self.gate = nn.Parameter(like.new_empty(kernel))
        self.register_buffer("attention", like.new_empty((heads, geometry.positions, geometry.pixels), requires_grad=False))
        self.register_buffer("anchors", _anchors(geometry).to(like.device), persistent=False)
        self.close(torch.Generator().manual_seed(options.seed))

    @torch.no_grad()
    def close(self, generator: torch.Generator | None = None) -> None:
        """Close the gate: a convolution with ``values``, whatever the content attention, which starts anew.

        Args:
            generator: of the queries and keys; the global random state if None.
        """
        self.gate.zero_()
        for parameter in (self.query, self.key):
            drawn = torch.empty(parameter.shape, dtype=torch.float64)
            parameter.copy_(nn.init.trunc_normal_(drawn, std=QUERY_KEY_STD, generator=generator))
        self.attention.fill_(1 / self.geometry.pixels)

    def reset_parameters(self) -> None:
        """A convolution at PyTorch's default initialisation."""
        self.values.reset_parameters()
        self.close()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[batch, in_channels, *input size] to [batch, out_channels, *output size]."""
        x, single = self.batched(x)
        gate = self.gate.tanh()
        y: torch.Tensor = functional_call(self.values, {"weight": self.values.weight * (1 - gate)}, (x,))
        y = y + self._content(x.flatten(2), gate).view_as(y)
        return y.squeeze(0) if single else y

    def _content(self, x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        """Σ_h g_h W_h S^h x, [batch, in_channels, pixels] to [batch, groups, out_channels / groups, positions]."""
        query = torch.einsum("hdc,bcq->bhqd", self.query, x.index_select(2, self.anchors))
        key = torch.einsum("hdc,bcn->bhdn", self.key, x)
        attention = (query @ key / math.sqrt(self.options.head_dim)).softmax(-1)
        if self.training:
            with torch.no_grad():
                self.attention.lerp_(attention.mean(0).to(self.attention.dtype), MOMENTUM)
        groups, _, inputs = self.geometry.channel_block
        seen = torch.einsum("bhqn,bcn->bhcq", attention, x).unflatten(2, (groups, inputs))
        return torch.einsum("goih,bhgiq->bgoq", self._heads(self.values.weight * gate), seen)

    def _heads(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight of ``values`` as [groups, out_channels / groups, in_channels / groups, heads]."""
        return weight.flatten(2).unflatten(0, (self.geometry.groups, -1))

    @torch.no_grad()
    def lattice(self) -> LatticeLayer:
        """The fully connected layer that the attention is in the mean over images: W_ij = Σ_h ⟨A^h_ij⟩ W_h."""
        gate = self.gate.tanh()
        conv = self.geometry.convolution(self.values.weight).train(self.training)
        for name, parameter in self.values.named_parameters():
            conv.get_parameter(name).copy_(parameter).requires_grad_(parameter.requires_grad)
        conv.weight.mul_(1 - gate)
        layer = lift_layer(conv, self.geometry, EFCN, FullyConnectedLayer)
        groups, outputs, inputs = self.geometry.channel_block
        blocks = layer.weight.view(groups, outputs, self.geometry.positions, groups, inputs, self.geometry.pixels)
        for group, heads in enumerate(self._heads(self.values.weight * gate)):
            blocks[group, :, :, group].add_(torch.einsum("oih,hqn->oqin", heads, self.attention))
        return layer

    @torch.no_grad()
    def split(self, tensor: torch.Tensor, name: str = "values.weight") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """With closed gates any values are a convolution; gates, queries and keys only lead away from the receptive field."""
        zero = torch.zeros_like(tensor)
        return (tensor.clone(), zero, zero.clone()) if name.startswith("values.") else (zero, zero.clone(), tensor.clone())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, heads={self.gate.numel()}, head_dim={self.options.head_dim}"


def _anchors(geometry: ConvGeometry) -> torch.Tensor:
    """Pixel nearest to the centre of each position's receptive field, [positions]."""
    flat = np.zeros(1, dtype=np.int64)
    for axis in geometry.axes:
        flat = (flat[:, None] * axis.size + _centres(axis)[None, :]).ravel()
    return torch.from_numpy(flat)


def _centres(axis: Axis) -> np.ndarray:
    centre = np.arange(axis.positions) * axis.stride - axis.before + axis.dilation * (axis.kernel - 1) // 2
    return np.clip(centre, 0, axis.size - 1)
