"""Operators that take no tensor and make one that is to be filled: what to look out for where no memory is to be taken."""

from __future__ import annotations

import torch

aten = torch.ops.aten

MAKERS = frozenset(
    {
        aten.empty.memory_format,
        aten.empty_strided.default,
        aten.zeros.default,
        aten.ones.default,
        aten.full.default,
        aten.rand.default,
        aten.randn.default,
    }
)
"""Those that take no generator."""
