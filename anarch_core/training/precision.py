"""Arithmetic: the types of weights and inputs, and in what their products are taken."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import torch

from anarch_core.config.values import Precision
from anarch_core.float32_products import float32_products


def dtype_of(precision: Precision) -> torch.dtype:
    """Type of the weights and the inputs; under ``bfloat16`` the weights stay float32 and only products are taken in bfloat16."""
    return torch.float64 if precision == "float64" else torch.float32


def matmul_precision(precision: Precision) -> AbstractContextManager[None]:
    """Allow TF32 in matrix products and convolutions only where it was asked for; the settings found are put back."""
    return float32_products(tf32=precision == "tf32")


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """Takes products in bfloat16 where that was asked for."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
