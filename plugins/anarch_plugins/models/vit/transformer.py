"""The network ``vit``."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from anarch_core.errors import ConfigError
from anarch_plugins.models.vit.attention import GroupedQueryAttention
from anarch_plugins.models.vit.options import VitOptions
from anarch_plugins.models.vit.tokens import ChannelMlp, Patches, TokenMean, require_patches


def build(input_shape: tuple[int, ...], classes: int, options: VitOptions) -> nn.Sequential:
    """A pre-norm transformer over patches, its tokens averaged for a linear head; no dropout.

    Args:
        input_shape: [channels, length] or [channels, height, width].
        classes: number of outputs.
        options: patch, width, depth, heads, positions, and whether one block is used at all depths.

    Raises:
        ConfigError: the inputs are neither signals nor images, or sizes do not divide each other.
    """
    require_patches("vit", input_shape, options.patch)
    for part, whole, name, of in (
        (options.heads, options.width, "heads", "width"),
        (options.kv_heads, options.heads, "kv_heads", "heads"),
    ):
        if whole % part:
            msg = f"vit: {name} = {part} does not divide {of} = {whole}"
            raise ConfigError(msg)
    patches = Patches(input_shape, options.patch, options.width)
    relative = options.positions == "relative"
    grid = patches.grid if relative else None
    blocks = [Block(options.width, options.heads, options.kv_heads, grid) for _ in range(1 if options.tied else options.depth)]
    parts: list[tuple[str, nn.Module]] = [("patches", patches)]
    if not relative:
        parts.append(("positions", Positions(int(np.prod(patches.grid)), options.width)))
    parts += [
        ("blocks", Repeated(blocks[0], options.depth) if options.tied else nn.Sequential(*blocks)),
        ("norm", nn.LayerNorm(options.width)),
        ("pool", TokenMean()),
        ("head", nn.Linear(options.width, classes)),
    ]
    return nn.Sequential(OrderedDict(parts))


class Block(nn.Module):
    """Attention, then a network of two layers for every token; each is added to what it was given, normalised."""

    def __init__(self, width: int, heads: int, kv_heads: int, grid: Sequence[int] | None) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(width)
        self.attn = GroupedQueryAttention(width, heads, kv_heads, grid)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = ChannelMlp(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] to the same shape."""
        x = x + self.attn(self.norm_attn(x))
        y: torch.Tensor = x + self.mlp(self.norm_mlp(x))
        return y


class Repeated(nn.Module):
    """One block, called ``times`` times on what it gave."""

    def __init__(self, block: nn.Module, times: int) -> None:
        super().__init__()
        self.block, self.times = block, times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the last call gives."""
        for _ in range(self.times):
            x = self.block(x)
        return x


class Positions(nn.Module):
    """A vector added to each token."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(tokens, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small random numbers, as in ViT."""
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] to the same shape."""
        return x + self.weight
