"""Products that relaxed layers are made of, as fast as the machine allows.

A door for authors of relaxations.
"""

from __future__ import annotations

from anarch_core.ops.bilinear import accumulate, add_product, bilinear_product
from anarch_core.ops.fused import linear
from anarch_core.ops.joins import Joins
from anarch_core.ops.local import local_product
from anarch_core.ops.memory_format import empty_channels_last, is_channels_last
from anarch_core.ops.ordinary import needs_ordinary_operations
from anarch_core.ops.piece import Pass, Piece

__all__ = [
    "Joins",
    "Pass",
    "Piece",
    "accumulate",
    "add_product",
    "bilinear_product",
    "empty_channels_last",
    "is_channels_last",
    "linear",
    "local_product",
    "needs_ordinary_operations",
]
