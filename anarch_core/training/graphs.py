"""Operations on a device that are recorded once and played back as one: CUDA graphs."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from weakref import WeakSet

import torch

Play = Callable[[], None]
"""Do once more what was recorded, with the numbers that are now in the tensors it reads; nothing waits for the device."""


class AbstractGraphs(ABC):
    """Records operations on a device."""

    @abstractmethod
    def aside(self, *, waits: bool) -> AbstractContextManager[None]:
        """Inside, operations run as they are when they are recorded.

        Args:
            waits: whether the host may wait for the device; where it may not and does, that is a RuntimeError.
        """

    @abstractmethod
    def record(self, work: Callable[[], None]) -> Play:
        """Record what some work does on the device, which does not do it.

        Only what is on the device is recorded: numbers of the host are what they are now, and tensors have to stay where they are. The
        memory of what was recorded is held as long as what plays it back.

        Raises:
            Exception: the work cannot be recorded; the device can be used as before.
        """


class CudaGraphs(AbstractGraphs):
    """CUDA graphs, which have their temporary memory in common and are therefore played one at a time.

    Args:
        device: a card.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: WeakSet[torch.cuda.CUDAGraph] = WeakSet()

    @contextlib.contextmanager
    def aside(self, *, waits: bool) -> Iterator[None]:
        """Run on the stream on which work is recorded, which PyTorch asks for before it is."""
        found = torch.cuda.get_sync_debug_mode()
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(self._stream):
            torch.cuda.set_sync_debug_mode(found if waits else "error")
            try:
                yield
            finally:
                torch.cuda.set_sync_debug_mode(found)
        torch.cuda.synchronize(self._device)

    def record(self, work: Callable[[], None]) -> Play:
        """Record a graph."""
        graph = torch.cuda.CUDAGraph()
        try:
            with self._recording(graph):
                work()
        except BaseException:
            self._end_recording()
            raise
        self._graphs.add(graph)
        return graph.replay

    def _recording(self, graph: torch.cuda.CUDAGraph) -> AbstractContextManager[None]:
        pool = next((known.pool() for known in self._graphs), None)  # of one that is still held: PyTorch takes no pool up again
        # A thread may be reading batches to the card meanwhile.
        return torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local")

    def _end_recording(self) -> None:
        """After a recording that failed, PyTorch's random numbers wait for its end, and refuse to be drawn: another one ends it."""
        with contextlib.suppress(RuntimeError), self._recording(torch.cuda.CUDAGraph()):
            torch.zeros(1, device=self._device)


def graphs_on(device: torch.device) -> AbstractGraphs | None:
    """What records operations on a device; None where nothing does."""
    return CudaGraphs(device) if device.type == "cuda" else None
