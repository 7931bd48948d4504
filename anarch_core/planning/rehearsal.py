"""The memory of a step, found by taking it on tensors that hold no numbers.

The network that would be trained, the loop and the optimizer are the real ones, so what autograd keeps, what a relaxation's layers hold
besides and that a fused update needs no gradient are counted by no rule but their own code, for any network.
"""

from __future__ import annotations

import contextlib
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anarch_core.config.values import Precision
from anarch_core.planning.hollow import MAKERS, Hollow, call, hollowed, made
from anarch_core.relaxation.copying import replace
from anarch_core.relaxation.selection import Selection
from anarch_core.training import Training, evaluate

aten = torch.ops.aten

CONSTANT = 2**20
"""Bytes below which a tensor made of nothing is made for real: layers keep index tables for later, which must hold their numbers."""

RETURNED = 32 * 2**20
"""Bytes from which on the C library (glibc) returns a freed block to the system. What is smaller it keeps, for blocks as small."""

KEPT = 64 * 2**20
"""Bytes of freed small blocks that it may hold beyond their largest sum: as much as it leaves at the end of its heap."""


@attrs.frozen(kw_only=True)
class Peak:
    """Memory at the fullest moment of a step, in bytes.

    Attributes:
        used: by tensors, and by the copies that kernels make of them.
        held: by the process. On a CPU that is more, since the C library keeps freed blocks that are small; on a GPU the same.
    """

    used: int
    held: int


class Rehearsal:
    """A network whose tensors hold no numbers.

    Args:
        model: the network it is a copy of; not changed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = hollowed(model)

    def relax(self, found: Selection) -> None:
        """Put relaxed layers in the place of those that were found in the original network."""
        for site in found.sites:
            hollow = attrs.evolve(site, module=self.model.get_submodule(site.path))
            self.model = replace(self.model, found.paths[site.path], found.relaxation.lift(hollow))

    def training(
        self,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        x: torch.Tensor,
        y: torch.Tensor,
        batch: int,
        precision: Precision = "float32",
    ) -> Peak:
        """Peak of a training step, the network and the optimizer's state included, the data set not.

        Args:
            optimizer: makes one for a network.
            x: inputs, any number of them.
            y: their labels.
            batch: samples per step.
            precision: as in training.

        Raises:
            RuntimeError: how the network goes on depends on numbers.
        """
        with self._counted(x, y, batch) as (ledger, inputs, labels):
            training = Training(
                model=self.model,
                optimizer=optimizer(self.model),
                x=inputs,
                y=labels,
                batch_size=batch,
                seed=0,
                learning_rate=lambda _: 1e-3,
                precision=precision,
            )
            training.advance(1)
            if training.optimizer.state:  # what the first step left stays from now on
                training.advance(2)
            training.optimizer.zero_grad()
        return ledger.peak()

    def evaluation(self, x: torch.Tensor, y: torch.Tensor, batch: int, precision: Precision = "float32") -> Peak:
        """Peak of evaluating one batch, the network included, the data set not; arguments as above.

        Raises:
            RuntimeError: how the network goes on depends on numbers.
        """
        with self._counted(x, y, batch) as (ledger, inputs, labels):
            evaluate(self.model, inputs, labels, batch=batch, precision=precision)
        return ledger.peak()

    @contextlib.contextmanager
    def _counted(self, x: torch.Tensor, y: torch.Tensor, batch: int) -> Iterator[tuple[_Ledger, torch.Tensor, torch.Tensor]]:
        inputs, labels = (Hollow(torch.empty(batch, *each.shape[1:], dtype=each.dtype, device="meta"), each.device) for each in (x, y))
        ledger = _Ledger(x.device)
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            ledger.note(tensor)
        ledger.ignore(inputs, labels)
        with ledger, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come when it matters
            yield ledger, inputs, labels


class _Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the storages that are alive."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._device = device
        self._known: set[int] = set()
        # Small and large blocks: now, and at the most.
        self._now, self._most, self._total = [0, 0], [0, 0], 0

    def peak(self) -> Peak:
        """What was counted so far."""
        small, large = self._most
        return Peak(used=self._total, held=small + large + min(small, KEPT) if self._device.type == "cpu" else self._total)

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
        if func in MAKERS and _storage(hollow := made(func, args, kwargs)).nbytes() >= CONSTANT:
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
