"""What a CUDA graph is, on a processor: the operations of some work, done again with the numbers that are then in the tensors they read.

As there, tensors stay where they are and numbers of the host are what they were; waiting for the device and what Python does are no part
of it. Unlike there, recording does the work: whoever records puts everything back.
"""

from __future__ import annotations

import contextlib

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anarch_core.training.graphs import AbstractGraphs


def waits(func, args):
    """Whether the host waits for its card to do an operation: what PyTorch marks as dependent on data."""
    indexing = func in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten.index_put.default)
    masks = indexing and any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    dependent = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
    return masks or bool(dependent and not indexing)


class Recorder(TorchDispatchMode):
    """Notes operations as they are done."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if waits(func, args):
            msg = f"{func} waits for the device, which is not permitted when stream is capturing"
            raise RuntimeError(msg)
        result = func(*args, **kwargs)
        self.done.append((func, args, kwargs, result))
        return result


class Recorded(AbstractGraphs):
    """Records on a processor."""

    def __init__(self):
        self.recorded = self.replayed = 0

    @contextlib.contextmanager
    def aside(self, *, waits):
        with contextlib.nullcontext() if waits else Recorder():
            yield

    def record(self, work):
        recorder = Recorder()
        with recorder:
            work()
        self.recorded += 1

        @torch.no_grad()
        def play():
            self.replayed += 1
            for func, args, kwargs, there in recorder.done:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(there), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.detach().copy_(new)

        return play
