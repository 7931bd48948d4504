"""How alike the representations of two networks are, layer by layer, on the same inputs: debiased linear CKA.

A door for authors of probes.
"""

from __future__ import annotations

from anarch_core.similarity.comparison import Similarity, cka, compared
from anarch_core.similarity.hsic import linear_cka, unbiased_hsic
from anarch_core.similarity.representations import OUTPUT

__all__ = [
    "OUTPUT",
    "Similarity",
    "cka",
    "compared",
    "linear_cka",
    "unbiased_hsic",
]
