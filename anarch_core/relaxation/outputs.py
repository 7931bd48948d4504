"""The numbers in what a network returns, whatever it returns, and how far two of them are apart."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import nn

PLAIN = (str, bytes, type, nn.Module, torch.device, torch.dtype, torch.Generator, types.FunctionType, types.MethodType, types.ModuleType)
"""What holds no numbers of an output."""


def numbers_in(result: Any) -> list[torch.Tensor]:
    """Copies of all numbers in what a network returned, in an order that depends on its structure alone.

    Tensors of any kind (complex, integer, sparse, nested, quantised), NumPy arrays and plain numbers count; they are looked for in
    mappings, sequences, sets, iterators (which are used up), dataclasses and any other object that has attributes.
    """
    return [copy for leaf in leaves_of(result) for copy in _copies(leaf)]


def leaves_of(value: Any, above: Sequence[Any] = ()) -> Iterator[torch.Tensor]:
    """The tensors themselves, and tensors of whatever else are numbers in it.

    Args:
        value: what a network, or one of its layers, returned.
        above: objects that it lies in, which are not looked into again.
    """
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, np.ndarray | np.generic):
        if value.dtype.kind in "biufc":
            yield torch.from_numpy(np.array(value))
    elif isinstance(value, bool | int | float | complex):
        yield torch.tensor(value, dtype=torch.complex128 if isinstance(value, complex) else torch.float64, device="cpu")
    elif value is not None and not isinstance(value, PLAIN) and not any(value is outer for outer in above):
        for item in _items(value):
            yield from leaves_of(item, [*above, value])


def _items(value: Any) -> Iterable[Any]:
    """What an object is made of."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, Sequence | Iterator | AbstractSet):
        return list(value)
    slots = [name for kind in type(value).__mro__ for name in _names(vars(kind).get("__slots__", ())) if hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).values(), *(getattr(value, name) for name in slots if not name.startswith("__"))]


def _names(slots: str | Iterable[str]) -> Iterable[str]:
    return (slots,) if isinstance(slots, str) else slots


def _copies(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensor as plain ones that nobody else changes."""
    tensor = tensor.detach()
    if tensor.is_nested:
        return [part.clone() for part in tensor.unbind()]
    if tensor.is_quantized:
        return [tensor.dequantize()]
    return [tensor.clone() if tensor.layout == torch.strided else tensor.to_dense()]


def deviation(actual: torch.Tensor, expected: torch.Tensor) -> float | None:
    """Largest difference of two tensors over the largest finite number that was expected.

    Equal infinities are equal, and so are two that are not a number.

    Returns:
        None where nothing can be compared: no number is expected, none that is a number, or there are no data (meta tensors);
        infinity where the shapes differ, or one is finite and the other is not.
    """
    if actual.shape != expected.shape:
        return float("inf")
    if expected.numel() == 0 or "meta" in (actual.device.type, expected.device.type):
        return None
    exact = torch.complex128 if actual.is_complex() or expected.is_complex() else torch.float64
    actual, expected = (tensor.detach().to(exact).resolve_conj().resolve_neg() for tensor in (actual, expected))
    if bool(expected.isnan().all()) and bool(actual.isnan().all()):
        return None
    equal = (actual == expected) | (actual.isnan() & expected.isnan())
    difference = torch.where(equal, 0.0, (actual - expected).abs())
    largest = float(torch.where(difference.isnan(), torch.inf, difference).max())
    if largest == 0:
        return 0.0
    finite = expected.isfinite()
    scale = float(torch.where(finite, expected.abs(), 0.0).max())
    return largest / scale if scale > 0 else float("inf")


def deviations(actual: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> list[float | None]:
    """Of every tensor from what was expected, one where there is none; all are infinite where there are not as many."""
    if len(actual) != len(expected):
        return [float("inf")] * max(len(expected), 1)
    return [deviation(a, b) for a, b in zip(actual, expected, strict=True)] or [None]


def largest(errors: Iterable[float | None]) -> float | None:
    """The largest of those that were measured; None where none was."""
    return max((error for error in errors if error is not None), default=None)


def rounding(dtype: torch.dtype) -> float:
    """What sums of many products may differ by, relative to the largest, where they are rounded to ``dtype``.

    The sums themselves are made in float32 at least, so for half precision a few units in the last place are all there is.
    """
    eps = torch.finfo(dtype).eps
    return 16 * eps if eps > 1e-4 else 1e3 * eps
