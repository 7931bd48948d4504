"""The constrained layers: Monarch matrices, and weights that a hash looks up in a codebook."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class MonarchLinear(nn.Module):
    """y = W x + b with W = P L Pᵀ R: two block-diagonal matrices, and between them the permutation that deals each block out to all.

    With outputs (l, j) and inputs (k, i), where j and k count the blocks of L and of R, W[(l, j), (k, i)] = L[j, l, k] R[k, j, i]. So every
    output depends on every input, and block (j, k) of W, [out / blocks, in / blocks], has rank one.

    Attributes:
        left: L, [blocks, out_features / blocks, blocks].
        right: R, [blocks, blocks, in_features / blocks].
        bias: [out_features], or None.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        blocks: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if blocks < 1 or in_features % blocks or out_features % blocks:
            msg = f"blocks must divide in_features = {in_features} and out_features = {out_features}, and is {blocks}"
            raise ValueError(msg)
        self.in_features, self.out_features, self.blocks = in_features, out_features, blocks
        self.left = nn.Parameter(torch.empty(blocks, out_features // blocks, blocks, device=device, dtype=dtype))
        self.right = nn.Parameter(torch.empty(blocks, blocks, in_features // blocks, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Entries of W have mean zero and variance 1 / (3 in_features), as those of a dense layer at PyTorch's default."""
        nn.init.uniform_(self.left, -math.sqrt(3 / self.blocks), math.sqrt(3 / self.blocks))
        nn.init.uniform_(self.right, -math.sqrt(self.blocks / self.in_features), math.sqrt(self.blocks / self.in_features))
        if self.bias is not None:
            nn.init.uniform_(self.bias, -1 / math.sqrt(self.in_features), 1 / math.sqrt(self.in_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., out_features]."""
        dealt = torch.einsum("...ki,kji->...kj", x.unflatten(-1, (self.blocks, -1)), self.right)
        y = torch.einsum("...kj,jlk->...lj", dealt, self.left).flatten(-2)
        return y if self.bias is None else y + self.bias

    def matrix(self) -> torch.Tensor:
        """W, [out_features, in_features]."""
        return torch.einsum("jlk,kji->ljki", self.left, self.right).reshape(self.out_features, self.in_features)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.in_features}, {self.out_features}, blocks={self.blocks}, bias={self.bias is not None}"


class HashedLinear(nn.Module):
    """y = W x + b with W[i, j] = codebook[h(i, j)] for a fixed hash h.

    Attributes:
        codebook: [codes].
        bias: [out_features], or None.
        code: h, int64, [out_features, in_features]; not saved, since sizes and seed say what it is.
    """

    code: torch.Tensor

    def __init__(self, in_features: int, out_features: int, codes: int, seed: int = 0, bias: bool = True) -> None:
        super().__init__()
        self.in_features, self.out_features, self.codes, self.seed = in_features, out_features, codes, seed
        self.codebook = nn.Parameter(torch.empty(codes))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        self.register_buffer("code", torch.from_numpy(self.hash()), persistent=False)
        self.reset_parameters()

    def hash(self) -> NDArray[np.int64]:
        """Which code each entry has, [out_features, in_features]: entry and seed mixed as in splitmix64, the same wherever it is run."""
        entry = np.arange(self.out_features * self.in_features, dtype=np.uint64)
        mixed = (entry + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(self.seed * 0xD1B54A32D192ED03 % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
        return (mixed % np.uint64(self.codes)).astype(np.int64).reshape(self.out_features, self.in_features)

    def reset_parameters(self) -> None:
        """Uniform in ±in_features^(-1/2), as a dense layer."""
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -1 / math.sqrt(self.in_features), 1 / math.sqrt(self.in_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] to [..., out_features]."""
        return nn.functional.linear(x, self.codebook[self.code], self.bias)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.in_features}, {self.out_features}, codes={self.codes}, seed={self.seed}, bias={self.bias is not None}"
