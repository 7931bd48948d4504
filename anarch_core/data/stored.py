"""Inputs that stay where they are stored, in the host's memory or in a file that is mapped into it, and are read a batch at a time."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Generator, Sequence
from typing import Literal

import attrs
import torch

from anarch_core.data.statistics import chunks, scaled, statistics_of

AHEAD = 2
"""Batches that are read ahead of the one that is trained on."""

Index = slice | torch.Tensor

PartName = Literal["train", "test", "validation"]


@attrs.frozen(eq=False)
class Stored:
    """Inputs that are not in the device's memory: what is indexed is read, moved there, and becomes floating-point numbers there.

    Bytes stay bytes until then; each number is the one that normalising all of them at once gives, to the last bit.

    Attributes:
        source: inputs as they are stored, [n, channels, *spatial], any real numbers, on the CPU; it may be a view of a mapped file.
        mean: of each channel, float64 [channels], and
        deviation: its standard deviation, by which numbers are normalised; both None for numbers that are taken as they are.
        rows: which of them are the samples, int64 on the CPU; None for all.
        device: where batches go.
        dtype: their floating-point type.
    """

    source: torch.Tensor
    mean: torch.Tensor | None = None
    deviation: torch.Tensor | None = None
    rows: torch.Tensor | None = None
    device: torch.device = attrs.field(default=torch.device("cpu"), converter=torch.device)
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        """Of all samples."""
        return torch.Size((len(self), *self.source.shape[1:]))

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.source.ndim

    @property
    def nbytes(self) -> int:
        """Bytes that all samples take on the device, were they there."""
        return self.shape.numel() * self.dtype.itemsize

    @property
    def bounded(self) -> bool:
        """Whether no number can be infinite or none at all, because they are stored as integers."""
        return not self.source.is_floating_point()

    def __len__(self) -> int:
        return len(self.source) if self.rows is None else len(self.rows)

    def __getitem__(self, index: Index) -> torch.Tensor:
        """Samples on the device, [k, channels, *spatial]."""
        return self._finished(self._read(index).to(self.device))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Stored:
        """The same inputs, for another device or as other floating-point numbers; nothing is moved."""
        return attrs.evolve(self, device=self.device if device is None else device, dtype=dtype or self.dtype)

    def select(self, index: Index) -> Stored:
        """Some of the samples: a slice, or int64 [k] in the order that they are to have; nothing is read."""
        return attrs.evolve(self, rows=self._rows(index))

    def statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of each channel as stored, see :func:`~anarch_core.data.statistics.channel_statistics`."""
        return statistics_of(self._read(slice(start, start + 1024)) for start in range(0, len(self), 1024))

    def loaded(self) -> torch.Tensor:
        """All samples as they are stored, in memory."""
        return self.source if self.rows is None else self.source.index_select(0, self.rows)

    def whole(self) -> torch.Tensor:
        """All samples on the device."""
        result = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        for start, target in zip(range(0, len(self), 1024), chunks(result), strict=True):
            target.copy_(self[start : start + 1024])
        return result

    def batches(self, wanted: Sequence[Index]) -> Generator[torch.Tensor, None, None]:
        """Batches on the device, read by a thread of their own ahead of the one that is given out.

        On a CUDA device they are moved beside what the device computes. The order is that of ``wanted``; whoever stops early closes the
        iterator.
        """
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        ready: queue.Queue[tuple[torch.Tensor, torch.cuda.Event | None] | BaseException] = queue.Queue(AHEAD)
        stopped = threading.Event()

        def put(item: tuple[torch.Tensor, torch.cuda.Event | None] | BaseException) -> None:
            while not stopped.is_set():
                with contextlib.suppress(queue.Full):
                    ready.put(item, timeout=0.1)
                    return

        def read() -> None:
            try:
                for index in wanted:
                    if stopped.is_set():
                        return
                    put(self._moved(self._read(index), stream))
            except BaseException as error:  # told where the batch is waited for
                put(error)

        reader = threading.Thread(target=read, name="batches", daemon=True)
        reader.start()
        try:
            for _ in wanted:
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                moved, event = item
                if event is not None:
                    here = torch.cuda.current_stream(self.device)
                    here.wait_event(event)
                    moved.record_stream(here)
                yield self._finished(moved)
        finally:
            stopped.set()
            reader.join()

    def _moved(self, raw: torch.Tensor, stream: torch.cuda.Stream | None) -> tuple[torch.Tensor, torch.cuda.Event | None]:
        if stream is None:
            return raw.to(self.device), None
        with torch.cuda.stream(stream):
            return raw.pin_memory().to(self.device, non_blocking=True), stream.record_event()

    def _read(self, index: Index) -> torch.Tensor:
        """Samples as they are stored, in memory of their own."""
        return self.source.index_select(0, self._rows(index))

    def _rows(self, index: Index) -> torch.Tensor:
        wanted = torch.arange(*index.indices(len(self))) if isinstance(index, slice) else index.cpu()
        return wanted if self.rows is None else self.rows[wanted]

    def _finished(self, raw: torch.Tensor) -> torch.Tensor:
        if self.mean is None or self.deviation is None:
            return raw.float().to(self.dtype)
        return scaled(raw, self.mean, self.deviation).to(self.dtype)


Inputs = torch.Tensor | Stored
"""Inputs of a part of a data set: on the device, or read a batch at a time."""


def batches(inputs: Inputs, wanted: Sequence[Index]) -> Generator[torch.Tensor, None, None]:
    """Batches of inputs on their device, in the order wanted: slices as views where they are there already."""
    if isinstance(inputs, Stored):
        yield from inputs.batches(wanted)
        return
    for index in wanted:
        yield inputs[index] if isinstance(index, slice) else inputs.index_select(0, index)


def taken(inputs: Inputs, index: Index) -> Inputs:
    """Some of the samples: a slice, or int64 [k]."""
    return inputs.select(index) if isinstance(inputs, Stored) else inputs[index]
