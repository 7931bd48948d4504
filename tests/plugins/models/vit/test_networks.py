"""The networks ``vit`` and ``resmlp``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from anarch_core.errors import ConfigError
from anarch_core.models import build_model
from anarch_plugins.models.vit.attention import GroupedQueryAttention
from anarch_plugins.models.vit.resmlp import ToeplitzLinear
from anarch_plugins.models.vit.tokens import offset_index


def test_attention_is_that_of_pytorch_with_keys_and_values_repeated() -> None:
    attention = GroupedQueryAttention(12, heads=6, kv_heads=2, grid=(2, 4)).double()
    x = torch.randn(3, 8, 12, dtype=torch.float64)
    queries, keys, values = (
        projection(x).view(3, 8, -1, 2).transpose(1, 2) for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    table, index = attention.relative_position_bias_table, attention.relative_position_index
    assert table is not None
    bias = torch.stack([table[index][..., head] for head in range(6)])
    mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, enable_gqa=True)
    torch.testing.assert_close(attention(x), attention.o_proj(mixed.transpose(1, 2).reshape(3, 8, 12)))


@pytest.mark.parametrize("grid", [(4,), (2, 3), (1, 1), (3, 1)])
@pytest.mark.parametrize("circulant", [False, True])
def test_tokens_at_one_offset_have_one_number(grid: tuple[int, ...], circulant: bool) -> None:
    index, labels = offset_index(grid, circulant=circulant)
    places = torch.cartesian_prod(*(torch.arange(side) for side in grid)).reshape(-1, len(grid)).tolist()
    offsets = {}
    for i, place in enumerate(places):
        for j, other in enumerate(places):
            offset = [a - b for a, b in zip(place, other, strict=True)]
            offset = [step % side for step, side in zip(offset, grid, strict=True)] if circulant else offset
            assert offsets.setdefault(tuple(offset), index[i, j]) == index[i, j]
    assert sorted(offsets.values()) == list(range(labels))


def test_circulant_matrices_commute_with_turning() -> None:
    layer = ToeplitzLinear((3, 4), circulant=True).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)

    def turned(y: torch.Tensor) -> torch.Tensor:
        return y.reshape(2, 3, 4).roll((1, 2), (1, 2)).flatten(1)

    nn.init.zeros_(layer.bias)
    torch.testing.assert_close(layer(turned(x)), turned(layer(x.flatten(1))))


def test_toeplitz_matrix() -> None:
    layer = ToeplitzLinear((3,))
    with torch.no_grad():
        layer.weight.copy_(torch.arange(5.0))
        matrix = layer(torch.eye(3)).T - layer.bias[:, None]
    assert torch.equal(matrix.round(decimals=5), torch.tensor([[2.0, 1, 0], [3, 2, 1], [4, 3, 2]]))


def test_one_block_at_all_depths() -> None:
    sizes = [
        sum(parameter.numel() for parameter in build_model("vit", input_shape=(1, 8), classes=2, options=options).blocks.parameters())
        for options in ({"depth": 1}, {"depth": 5, "tied": True}, {"depth": 5})
    ]
    assert sizes == [sizes[0], sizes[0], 5 * sizes[0]]


@pytest.mark.parametrize(
    ("name", "shape", "options", "told"),
    [
        ("vit", (1, 42), {}, r"patches of side 4 do not fill .* \(1, 42\); sides that do: 1, 2, 3, 6, 7, 14, 21 \(option 'patch' of vit\)"),
        ("resmlp", (3, 8, 6), {}, r"sides that do: 1, 2 \(option 'patch' of resmlp\)"),
        ("resmlp", (1, 4, 4, 4), {}, r"resmlp takes signals \[channels, length\] and images"),
        ("vit", (1, 8), {"heads": 5}, "heads = 5 does not divide width = 32"),
        ("vit", (1, 8), {"kv_heads": 3}, "kv_heads = 3 does not divide heads = 4"),
    ],
)
def test_sizes_that_do_not_fit(name: str, shape: tuple[int, ...], options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        build_model(name, input_shape=shape, classes=2, options=options)
