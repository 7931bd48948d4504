"""Tensors of which every process holds a part: gathered a piece at a time as they are written, picked out of a file as it is read.

The file has the bytes that one process would write, and no process ever holds a whole tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import torch

from anarch_core.errors import CheckpointError
from anarch_core.sharding.cut import Cut
from anarch_core.sharding.shards import Shards

PIECE = 8 << 20
"""Bytes of a tensor that are gathered, or looked through, at once."""


def cut_of(cuts: Mapping[str, Cut], name: str) -> Cut | None:
    """The cut of a tensor: under its own name, or under one above, as an optimizer keeps tensors for a parameter; None if there is none."""
    while name and name not in cuts:
        name = name.rpartition(".")[0]
    return cuts.get(name)


def held(cuts: Mapping[str, Cut], tensors: Mapping[str, torch.Tensor]) -> dict[str, Cut]:
    """Of which tensors this process holds a part, by name.

    Args:
        cuts: see :func:`cut_of`; one under a name above holds for tensors of its part's shape.
        tensors: by name.

    Raises:
        CheckpointError: a tensor has not the shape of the part.
    """
    found = {name: cut for name in tensors if (cut := cut_of(cuts, name)) is not None}
    for name, cut in list(found.items()):
        shape = tuple(tensors[name].shape)
        if shape == cut.part_shape:
            continue
        if name in cuts:
            msg = f"tensor {name!r} has shape {shape}; expected {cut.part_shape}, this process's part of {cut.shape}"
            raise CheckpointError(msg)
        del found[name]
    return found


def give(part: torch.Tensor, cut: Cut, shards: Shards) -> None:
    """Give the first process what it asks for in :func:`gathered`.

    Args:
        part: this process's.
        cut: of the tensor.
        shards: the processes.
    """
    own, cut = _flat(part), cut.in_bytes(part.element_size())
    for first in range(0, cut.numbers, PIECE):
        low, high = cut.held_before(first), cut.held_before(min(first + PIECE, cut.numbers))
        if low < high:
            shards.send(own[low:high].cpu())


def gathered(part: torch.Tensor, cut: Cut, shards: Shards) -> Iterator[memoryview]:
    """The bytes of the whole, a piece at a time, for the first process; the others :func:`give` theirs.

    Args:
        part: this process's.
        cut: of the tensor.
        shards: the processes.

    Yields:
        memory that is written over once the next piece is asked for.
    """
    own, cut = _flat(part), cut.in_bytes(part.element_size())
    cuts = [attrs.evolve(cut, own=shards.stretch(cut.channels, rank)) for rank in range(shards.size)]
    room, received = (torch.empty(min(PIECE, cut.numbers), dtype=torch.uint8, device="cpu") for _ in range(2))
    for first in range(0, cut.numbers, PIECE):
        piece = room[: cut.numbers - first]
        for rank, each in enumerate(cuts):
            low, high = each.held_before(first), each.held_before(first + len(piece))
            if low == high:
                continue
            numbers = received[: high - low] if rank else own[low:high]
            if rank:
                shards.receive(numbers, rank)
            views = each.within(piece, first)
            for view, stretch in zip(views, torch.split(numbers, [view.numel() for view in views]), strict=True):
                view.copy_(stretch.view(view.shape))
        yield piece.numpy().data


def picked(part: torch.Tensor, cut: Cut) -> Iterator[memoryview]:
    """Room for the bytes of the whole, a piece at a time; once a piece is filled, this process's numbers of it are kept.

    Args:
        part: what is to be filled; contiguous, on the CPU.
        cut: of the tensor.
    """
    own, cut = _flat(part), cut.in_bytes(part.element_size())
    room = torch.empty(min(PIECE, cut.numbers), dtype=torch.uint8, device="cpu")
    for first in range(0, cut.numbers, PIECE):
        piece = room[: cut.numbers - first]
        yield piece.numpy().data
        low = cut.held_before(first)
        for view in cut.within(piece, first):
            own[low : low + view.numel()].view(view.shape).copy_(view)
            low += view.numel()


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, [bytes], where it is; its memory if it is contiguous."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
