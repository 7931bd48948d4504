"""The network ``resmlp``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from anarch_plugins.models.vit.options import ResmlpOptions
from anarch_plugins.models.vit.tokens import ChannelMlp, Patches, TokenMean, offset_index, require_patches


def build(input_shape: tuple[int, ...], classes: int, options: ResmlpOptions) -> nn.Sequential:
    """Blocks of one linear map over the tokens and a network of two layers over the channels, averaged for a linear head.

    The map over the tokens is a Toeplitz matrix: its weights depend on the offset between two tokens alone, and on images on both offsets.

    Args:
        input_shape: [channels, length] or [channels, height, width].
        classes: number of outputs.
        options: patch, width, depth, and whether offsets count modulo the side.

    Raises:
        ConfigError: the inputs are neither signals nor images, or are not filled by patches.
    """
    require_patches("resmlp", input_shape, options.patch)
    patches = Patches(input_shape, options.patch, options.width)
    blocks = (Block(options.width, patches.grid, circulant=options.circulant) for _ in range(options.depth))
    return nn.Sequential(
        OrderedDict(
            patches=patches,
            blocks=nn.Sequential(*blocks),
            norm=nn.LayerNorm(options.width),
            pool=TokenMean(),
            head=nn.Linear(options.width, classes),
        )
    )


class ToeplitzLinear(nn.Module):
    """A linear layer whose matrix has one weight per diagonal: W[i, j] = weight[weight_index[i, j]].

    Args:
        grid: sizes of the axes that the last axis of an input is made of, (n,) for an ordinary Toeplitz matrix.
        circulant: diagonals go on at the other side.

    Attributes:
        weight: one per diagonal, 2n - 1, or n if circulant.
        weight_index: the diagonal of each entry of the matrix, [out_features, in_features].
        bias: [out_features].
    """

    weight_index: torch.Tensor

    def __init__(self, grid: Sequence[int], *, circulant: bool = False) -> None:
        super().__init__()
        index, diagonals = offset_index(grid, circulant=circulant)
        self.out_features, self.in_features = index.shape
        self.weight = nn.Parameter(torch.empty(diagonals))
        self.bias = nn.Parameter(torch.empty(self.out_features))
        self.register_buffer("weight_index", torch.from_numpy(index), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The distribution of ``nn.Linear``, drawn once per diagonal."""
        bound = self.in_features**-0.5
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., out_features]."""
        return nn.functional.linear(x, self.weight[self.weight_index], self.bias)

    def extra_repr(self) -> str:
        """Sizes, for ``print``."""
        return f"in_features={self.in_features}, out_features={self.out_features}, diagonals={self.weight.numel()}"


class Block(nn.Module):
    """A matrix over the tokens, then a network of two layers for every token; each is added to what it was given, normalised."""

    def __init__(self, width: int, grid: Sequence[int], *, circulant: bool) -> None:
        super().__init__()
        self.norm_mix = nn.LayerNorm(width)
        self.mix = ToeplitzLinear(grid, circulant=circulant)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = ChannelMlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] to the same shape."""
        x = x + self.mix(self.norm_mix(x).transpose(1, 2)).transpose(1, 2)
        y: torch.Tensor = x + self.mlp(self.norm_mlp(x))
        return y
