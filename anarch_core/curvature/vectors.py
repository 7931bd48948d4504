"""The flat vectors that a matrix acts on: their products and lengths, and random ones; of one process, or in parts that several hold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import nn

from anarch_core.sharding.cut import Cut
from anarch_core.sharding.draws import draw_own
from anarch_core.sharding.shards import Shards
from anarch_core.sharding.shared_out import cuts_of, shards_of


class Vectors:
    """Flat vectors whose numbers this process holds all.

    Attributes:
        size: numbers of a vector, P.
        length: of them, those that this process holds; the length of its tensors.
        dtype: of the tensors.
        device: where they live.
    """

    def __init__(self, size: int, dtype: torch.dtype, device: torch.device) -> None:
        self.size = self.length = size
        self.dtype = dtype
        self.device = device

    def dot(self, one: torch.Tensor, other: torch.Tensor) -> float:
        """The inner product of two vectors."""
        return float(one @ other)

    def gram(self, vectors: Sequence[torch.Tensor]) -> torch.Tensor:
        """The inner products of vectors with one another, float64, [n, n]."""
        products = [[float(one @ other) for other in vectors] for one in vectors]
        return torch.tensor(products, dtype=torch.float64).reshape(len(vectors), len(vectors))

    def norm(self, vector: torch.Tensor) -> torch.Tensor:
        """The length of a vector in space, a tensor without axes."""
        length: torch.Tensor = vector.norm()
        return length

    def components(self, basis: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """The inner products of a vector with the rows of a basis, [n].

        Args:
            basis: [n, length].
            vector: [length], where the basis is.
        """
        return basis @ vector

    def normal(self, generator: torch.Generator) -> torch.Tensor:
        """Standard normal numbers.

        Args:
            generator: on the device of the vectors.
        """
        return torch.randn(self.length, dtype=self.dtype, device=self.device, generator=generator)

    def signs(self, generator: torch.Generator) -> torch.Tensor:
        """Numbers that are 1 or -1, each as likely.

        Args:
            generator: on the device of the vectors.
        """
        signs = torch.randint(2, (self.length,), device=self.device, generator=generator)
        return signs.to(self.dtype).mul_(2).sub_(1)


class _PartedVectors(Vectors):
    """Flat vectors of which several processes hold parts, in step.

    Inner products are those of the whole, in float64 over the processes, and equal on all of them to the last bit: each counts the
    numbers that it alone holds, and the first process those that all have. Random numbers are those that one process would draw on a CPU
    for the whole, of which each keeps its own; none ever holds the whole.
    """

    def __init__(self, shards: Shards, pieces: Sequence[tuple[int, Cut | None]], dtype: torch.dtype, device: torch.device) -> None:
        """Vectors that are made of tensors.

        Args:
            shards: the processes.
            pieces: for one tensor after the other, how many numbers this process holds, and which of the whole; None where it holds all.
            dtype: of the vectors.
            device: where they live.
        """
        numbers = [held if cut is None else cut.numbers for held, cut in pieces]
        super().__init__(sum(numbers), dtype, device)
        self.length = sum(held for held, _ in pieces)
        self._shards = shards
        self._places = list(zip(itertools.accumulate(numbers, initial=0), numbers, (cut for _, cut in pieces), strict=False))
        self._counted = [slice(0, self.length)] if shards.leads else list(_held_alone(pieces))

    def dot(self, one: torch.Tensor, other: torch.Tensor) -> float:
        return self._totals(self._product(one, other)[None])[0]

    def gram(self, vectors: Sequence[torch.Tensor]) -> torch.Tensor:
        if not vectors:
            return torch.zeros(0, 0, dtype=torch.float64)
        products = torch.stack([self._product(one, other) for one in vectors for other in vectors])
        return torch.tensor(self._totals(products), dtype=torch.float64).view(len(vectors), len(vectors))

    def norm(self, vector: torch.Tensor) -> torch.Tensor:
        squares = (vector[own].norm().double().square() for own in self._counted)
        (total,) = self._totals(sum(squares, start=self._zero(vector))[None])
        return torch.tensor(math.sqrt(total), dtype=torch.float64)

    def components(self, basis: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        if not len(basis):
            return basis.new_zeros(0)
        own = sum(((basis[:, own] @ vector[own]).double() for own in self._counted), start=self._zero(vector).expand(len(basis)))
        return torch.tensor(self._totals(own)).to(basis)

    def normal(self, generator: torch.Generator) -> torch.Tensor:
        return self._drawn(lambda count: torch.randn(count, dtype=self.dtype, device=self.device, generator=generator))

    def signs(self, generator: torch.Generator) -> torch.Tensor:
        return self._drawn(lambda count: torch.randint(2, (count,), device=self.device, generator=generator)).mul_(2).sub_(1)

    def _product(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """What this process counts of an inner product."""
        return sum(((one[own] @ other[own]).double() for own in self._counted), start=self._zero(one))

    def _zero(self, vector: torch.Tensor) -> torch.Tensor:
        return torch.zeros((), dtype=torch.float64, device=vector.device)

    def _totals(self, own: torch.Tensor) -> list[float]:
        return self._shards.totals([float(number) for number in own])

    def _drawn(self, draw: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """What is this process's of numbers that are drawn for the whole."""
        vector = torch.empty(self.length, dtype=self.dtype, device=self.device)
        draw_own(vector, self._places, draw)
        return vector


def vectors_of(model: nn.Module, parameters: Mapping[str, nn.Parameter]) -> Vectors:
    """Flat vectors of some parameters of a network, of one dtype and device.

    Args:
        model: the network.
        parameters: by name, in the order that they have in the vectors.
    """
    first, shards = next(iter(parameters.values())), shards_of(model)
    held = {name: parameter.numel() for name, parameter in parameters.items()}
    if shards is None:
        return Vectors(sum(held.values()), first.dtype, first.device)
    cuts = cuts_of(model)
    return _PartedVectors(shards, [(numbers, cuts.get(name)) for name, numbers in held.items()], first.dtype, first.device)


def _held_alone(pieces: Sequence[tuple[int, Cut | None]]) -> Iterator[slice]:
    """Where a vector has numbers that no other process has; neighbours together."""
    start = 0
    for alone, group in itertools.groupby(pieces, key=lambda piece: piece[1] is not None):
        stop = start + sum(held for held, _ in group)
        if alone:
            yield slice(start, stop)
        start = stop
