"""How much memory tensors take while something is done with them, real ones or such that hold no numbers."""

from __future__ import annotations

import sys
import weakref
from typing import Any

import attrs
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anarch_core.planning.hollow import MAKERS, Hollow, call, made

aten = torch.ops.aten

CONSTANT = 2**20
"""Bytes below which a tensor made of nothing is made for real: layers keep index tables for later, which must hold their numbers."""

RETURNED = 32 * 2**20
"""Bytes from which on the C library (glibc) returns a freed block to the system. What is smaller it keeps, for blocks as small."""

KEPT = 64 * 2**20
"""Bytes of freed small blocks that it may hold beyond their largest sum: as much as it leaves at the end of its heap."""


@attrs.frozen(kw_only=True)
class Peak:
    """Memory at the fullest moment, in bytes.

    Attributes:
        used: by tensors, and by the copies that kernels make of them.
        small: the most that blocks took that the C library keeps once they are freed; 0 on a GPU.
        large: the most that all others took; at another moment, perhaps.
    """

    used: int
    small: int
    large: int

    @property
    def held(self) -> int:
        """By a process that does nothing else. On a CPU that is more, since freed blocks that are small are kept."""
        return self.beside(self.small)

    def beyond(self, size: int) -> Peak:
        """With large blocks of some bytes besides."""
        return attrs.evolve(self, used=self.used + size, large=self.large + size)

    def beside(self, small: int) -> int:
        """By a process that at some other moment has small blocks of that size, of which all are kept by now."""
        kept = max(small, self.small)
        return self.large + kept + min(kept, KEPT)


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive.

    Args:
        device: whose memory.
        steps: calls of operators after which it is enough.
        makes: large tensors that are made of nothing are real; without it they hold no numbers.
    """

    def __init__(self, device: torch.device, steps: int = sys.maxsize, *, makes: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device, self._steps, self._makes = device, steps, makes
        self._known: set[int] = set()
        # Small and large blocks: now, and at the most.
        self._now, self._most, self._total = [0, 0], [0, 0], 0

    def peak(self) -> Peak:
        """What was counted so far."""
        small, large = self._most if self._device.type == "cpu" else (0, self._total)
        return Peak(used=self._total, small=small, large=large)

    def ignore(self, *tensors: torch.Tensor) -> None:
        """Leave out the storages of some tensors."""
        self._known.update(_storage(tensor)._cdata for tensor in tensors)

    def note(self, tensor: torch.Tensor) -> None:
        """Count the storage of a tensor until it is freed."""
        storage = _storage(tensor)
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known and tensor.device.type == self._device.type:
            self._known.add(key)
            self._add(size)
            weakref.finalize(storage, self._freed, key, size).atexit = False

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._add(-size)

    def _add(self, size: int) -> None:
        large = abs(size) >= RETURNED
        self._now[large] += size
        self._most[large] = max(self._most[large], self._now[large])
        self._total = max(self._total, sum(self._now))

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        self._steps -= 1
        if self._steps < 0:
            msg = "too many steps to be rehearsed"
            raise RuntimeError(msg)
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        hidden = _hidden(func, given) if self._device.type == "cpu" else []
        for size in hidden:
            self._add(size)
        result = self._result(func, given, args, kwargs)
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.note(leaf)
        for size in hidden:
            self._add(-size)
        return result

    def _result(self, func: Any, given: list[torch.Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if any(isinstance(tensor, Hollow) for tensor in given):
            return call(func, args, kwargs)
        if not self._makes and func in MAKERS and _storage(hollow := made(func, args, kwargs)).nbytes() >= CONSTANT:
            return hollow
        return func(*args, **kwargs)


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage:
    return (tensor.meta if isinstance(tensor, Hollow) else tensor).untyped_storage()


def _hidden(func: Any, given: list[torch.Tensor]) -> list[int]:
    """Bytes that the kernel of a call takes on a CPU and frees again: copies of operands in a layout that it can use."""
    if func is aten._fft_c2r.default:  # overwrites what it transforms, so it transforms a copy
        return [_bytes(given[0])]
    if func in (aten.convolution.default, aten.convolution_backward.default):
        operands = given[:1] if func is aten.convolution.default else given[:2]
        strided = [operand for operand in operands if not operand.is_contiguous() and not _channels_last(operand)]
        # What is strided is made dense first; where nothing has its channels last, all is brought to oneDNN's own layout.
        own = [] if any(_channels_last(operand) for operand in operands) else operands
        return [_bytes(operand) for operand in (*strided, *own)]
    if func in (aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default):
        return [
            _bytes(operand)
            for operand in given
            if (operand.meta if isinstance(operand, Hollow) else operand).is_conj() or (operand.ndim > 1 and 1 not in operand.stride()[-2:])
        ]
    return []


def _channels_last(x: torch.Tensor) -> bool:
    return x.ndim > 2 and x.movedim(1, -1).is_contiguous()


def _bytes(x: torch.Tensor) -> int:
    return x.numel() * x.element_size()
