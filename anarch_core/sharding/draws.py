"""Random numbers of which each process keeps its own: those that one process would draw on a CPU, a stretch of the whole at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch

from anarch_core.sharding.cut import Cut

DRAWN = 1 << 20
"""Numbers that are drawn at once."""

LEAST = 16
"""On a CPU PyTorch draws normal numbers by so many: stretches of multiples of it, none shorter, are what it draws at once."""

Place = tuple[int, int, Cut | None]
"""Of a tensor in the whole: where it begins, how many numbers it has, and which of them this process holds; None for all."""


def draw_own(flat: torch.Tensor, places: Iterable[Place], draw: Callable[[int], torch.Tensor]) -> None:
    """Fill what this process holds, having drawn the whole; never holds it.

    Args:
        flat: one tensor after the other, as this process holds them, [length]; changed in place.
        places: of the tensors, which follow each other.
        draw: gives the next so many numbers of the whole.
    """
    places = list(places)
    size, first, filled = sum(numbers for _, numbers, _ in places), 0, 0
    while first < size:
        rest = size - first
        drawn = draw(rest if rest < DRAWN + LEAST else DRAWN)
        for own in _own(drawn, first, places):
            flat[filled : filled + len(own)] = own
            filled += len(own)
        first += len(drawn)


def _own(drawn: torch.Tensor, first: int, places: Iterable[Place]) -> Iterator[torch.Tensor]:
    """This process's numbers of a stretch of the whole, in their order.

    Args:
        drawn: the stretch.
        first: where it begins.
        places: of the tensors.
    """
    for start, numbers, cut in places:
        low, high = max(start, first), min(start + numbers, first + len(drawn))
        if low < high:
            piece = drawn[low - first : high - first]
            yield piece if cut is None else cut.among(piece, low - start)
