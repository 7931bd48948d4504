"""Permutation symmetries of networks, removed before two networks of different seeds are compared.

A door for authors of probes.
"""

from __future__ import annotations

from anarch_core.alignment.aligning import Alignment, LayerDistance, align
from anarch_core.alignment.permutable import symmetries

__all__ = [
    "Alignment",
    "LayerDistance",
    "align",
    "symmetries",
]
