"""Attention whose heads of queries share keys and values, with a bias per offset between tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from anarch_plugins.models.vit.tokens import offset_index


class GroupedQueryAttention(nn.Module):
    """Self-attention with ``heads`` heads of queries, which share ``kv_heads`` heads of keys and values in groups of neighbours.

    One head of keys and values is multi-query attention (Shazeer 2019), several are grouped-query attention (Ainslie et al. 2023), as many
    as heads of queries multi-head attention. Names of projections are those of transformers' Llama, names of positions those of Swin.

    Args:
        width: numbers per token.
        heads: heads of queries; divides ``width``.
        kv_heads: heads of keys and values; divides ``heads``.
        grid: tokens per side, for a bias per offset between two tokens and head; None for no bias.
    """

    relative_position_bias_table: nn.Parameter | None
    relative_position_index: torch.Tensor

    def __init__(self, width: int, heads: int, kv_heads: int, grid: Sequence[int] | None = None) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.num_key_value_groups = heads // kv_heads
        self.q_proj = nn.Linear(width, heads * self.head_dim)
        self.k_proj = nn.Linear(width, kv_heads * self.head_dim)
        self.v_proj = nn.Linear(width, kv_heads * self.head_dim)
        self.o_proj = nn.Linear(heads * self.head_dim, width)
        if grid is None:
            self.register_parameter("relative_position_bias_table", None)
        else:
            index, offsets = offset_index(grid)
            self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, heads))
            self.register_buffer("relative_position_index", torch.from_numpy(index), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A small random bias per offset, as in Swin; the projections have an initialisation of their own."""
        if self.relative_position_bias_table is not None:
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, tokens, width] to the same shape."""
        queries, keys, values = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        keys, values = (heads.repeat_interleave(self.num_key_value_groups, dim=1) for heads in (keys, values))
        # In full, not by scaled_dot_product_attention: probes differentiate twice.
        scores = queries @ keys.transpose(-2, -1) / self.head_dim**0.5
        if self.relative_position_bias_table is not None:
            scores = scores + self.relative_position_bias_table[self.relative_position_index].movedim(-1, 0)
        mixed: torch.Tensor = self.o_proj((scores.softmax(-1) @ values).transpose(1, 2).flatten(2))
        return mixed
