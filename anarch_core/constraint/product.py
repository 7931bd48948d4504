"""A linear constraint on one parameter tensor, W = Aθ, as a product over factors; everything that follows from it."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence

import attrs
import numpy as np
import torch

from anarch_core.constraint.blocks import norm2, norms, sums
from anarch_core.constraint.incidence import Incidence
from anarch_core.constraint.parts import Drift


def _as_tuple(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(size) for size in sizes)


def _factors(factors: Sequence[Incidence]) -> tuple[Incidence, ...]:
    return tuple(factors)


@attrs.frozen(eq=False)
class Constraint:
    """W = Aθ: a weight of ``shape`` whose entries are those of a smaller one, equal where they share a label and zero without one.

    A is a product of factors. ``W.reshape([factor.entries ...])`` and ``θ.reshape([factor.labels ...])`` are what they act on, so a factor
    may stand for one axis, for several neighbouring ones, or for all.

    Attributes:
        shape: of the weight W.
        parent_shape: of the constrained weight θ.
        factors: of A, in the order of the axes.
    """

    shape: tuple[int, ...] = attrs.field(converter=_as_tuple)
    parent_shape: tuple[int, ...] = attrs.field(converter=_as_tuple)
    factors: tuple[Incidence, ...] = attrs.field(converter=_factors)

    def __attrs_post_init__(self) -> None:
        for name, shape, sizes in (("shape", self.shape, self._entries), ("parent_shape", self.parent_shape, self._labels)):
            if math.prod(shape) != math.prod(sizes):
                msg = f"{name} {list(shape)} has {math.prod(shape)} numbers, but the factors are {' x '.join(map(str, sizes))}"
                raise ValueError(msg)

    @classmethod
    def unshared(cls, shape: Sequence[int]) -> Constraint:
        """No constraint."""
        return cls(shape, shape, [Incidence.identity(math.prod(shape))])

    @property
    def _entries(self) -> list[int]:
        return [factor.entries for factor in self.factors]

    @property
    def _labels(self) -> list[int]:
        return [factor.labels for factor in self.factors]

    @functools.cached_property
    def injective(self) -> bool:
        """Whether different θ always give different W, so that θ can be read off W."""
        return all(factor.injective for factor in self.factors)

    @functools.cached_property
    def selects(self) -> bool:
        """Whether nothing is shared: every entry has a label of its own, or none."""
        return all(factor.single and bool((factor.counts <= 1).all()) for factor in self.factors)

    def counts(self) -> torch.Tensor:
        """How many entries each number of θ stands for, [*parent_shape], float64, where no entry has two labels."""
        counts = functools.reduce(np.multiply.outer, [factor.counts for factor in self.factors])
        return torch.from_numpy(np.asarray(counts)).reshape(self.parent_shape)

    def local(self) -> torch.Tensor:
        """Which entries have a label, bool, [*shape]."""
        covered = functools.reduce(np.logical_and.outer, [factor.covered for factor in self.factors])
        return torch.from_numpy(np.asarray(covered)).reshape(self.shape)

    def lift(self, theta: torch.Tensor) -> torch.Tensor:
        """A θ: the weight [*shape] that a constrained one [*parent_shape] is."""
        values = theta.reshape(self._labels)
        for axis, factor in enumerate(self.factors):
            values = factor.lift(values, axis)
        return values.reshape(self.shape)

    def total(self, weight: torch.Tensor) -> torch.Tensor:
        """Aᵀ W: sums over the entries of each label, [*parent_shape]. So the gradient by θ follows from that by W."""
        values = weight.reshape(self._entries)
        for axis, factor in enumerate(self.factors):
            values = factor.total(values, axis)
        return values.reshape(self.parent_shape)

    def divide(self, theta: torch.Tensor) -> torch.Tensor:
        """(AᵀA)⁺ θ: what was summed over entries becomes a mean, [*parent_shape]. Lifted, :meth:`total` gives θ back."""
        values = theta.reshape(self._labels)
        for axis, factor in enumerate(self.factors):
            values = factor.divide(values, axis)
        return values.reshape(self.parent_shape)

    def project(self, weight: torch.Tensor, *, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A⁺ W: the constrained weight [*parent_shape] nearest to a weight [*shape], summed in float64; zero where no entry says anything.

        Args:
            weight: [*shape].
            dtype: of the result; that of ``weight`` by default.
        """
        if self.selects:
            return self.total(weight).to(dtype or weight.dtype)
        values = weight.reshape(self._entries)
        shrunk = self.factors[0].single and not self.factors[0].free
        values = sums(self.factors[0], values) if shrunk else self.factors[0].total(values.double(), 0)
        for axis, factor in enumerate(self.factors[1:], start=1):
            values = factor.total(values, axis)
        return self.divide(values.reshape(self.parent_shape)).to(dtype or weight.dtype)

    def split(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Orthogonal parts of a weight [*shape] that add up to it: what obeys the constraint, what only its zeros obey, what neither."""
        shared = self.lift(self.project(weight))
        local = self._local_part(weight)
        return shared, local - shared, weight - local

    def _local_part(self, weight: torch.Tensor) -> torch.Tensor:
        values = weight.reshape(self._entries)
        for axis, factor in enumerate(self.factors):
            if not factor.covered.all():
                values = values * factor.mask(values, axis)
        return values.reshape(self.shape)

    def drift(self, weight: torch.Tensor, *, variance: float | None = None, start: torch.Tensor | None = None) -> Drift:
        """Squared norms of the parts of a weight, accumulated in float64.

        Args:
            weight: [*shape].
            variance: of an entry at default initialisation, independent of the others; None where not known.
            start: θ at an earlier moment, as :meth:`project` gives it, [*parent_shape].
        """
        theta = self.project(weight, dtype=torch.float64)
        if self.factors[0].single:
            unshared, off_local = norms(self.factors, weight.reshape(self._entries), theta.reshape(self._labels))
        else:
            local = self._local_part(weight.double())
            unshared, off_local = norm2(local - self.lift(theta)), norm2(weight.double() - local)
        return Drift(
            shared=self._norm2(theta),
            unshared=unshared,
            off_local=off_local,
            moved=None if start is None else self._norm2(theta - start.double()),
            reference=None if start is None else self._norm2(start.double()),
            initial=None if variance is None else self._expected(variance),
        )

    def _norm2(self, theta: torch.Tensor) -> float:
        """Squared norm of A θ."""
        if not all(factor.single for factor in self.factors):
            return norm2(self.lift(theta))
        values = theta.reshape(self._labels)
        counted = values
        for axis, factor in enumerate(self.factors):
            counted = factor.multiply(counted, axis)
        return float((values * counted).sum())

    def _expected(self, variance: float) -> tuple[float, float, float]:
        """Expected squares of the parts of independent entries: their variance times the dimension of each part."""
        shared = math.prod(_rank(factor) for factor in self.factors)
        local = math.prod(int(factor.covered.sum()) for factor in self.factors)
        return shared * variance, (local - shared) * variance, (math.prod(self.shape) - local) * variance

    def then(self, outer: Constraint) -> Constraint:
        """The constraint of this one's θ on the weight of ``outer``, whose θ is this one's weight.

        Raises:
            ValueError: ``outer`` constrains a weight of another shape.
        """
        if outer.parent_shape != self.shape:
            msg = f"the outer constraint is one of {list(outer.parent_shape)}, not of {list(self.shape)}"
            raise ValueError(msg)
        pairs = zip(*_aligned(self._entries, outer._labels), strict=True)
        factors = [_product(self.factors[inner]).then(_product(outer.factors[second])) for inner, second in pairs]
        return Constraint(outer.shape, self.parent_shape, factors)


def _rank(factor: Incidence) -> int:
    if factor.single:
        return int((factor.counts > 0).sum())
    return int(np.linalg.matrix_rank(factor.gram.toarray(), hermitian=True))


def _product(factors: Sequence[Incidence]) -> Incidence:
    return functools.reduce(Incidence.times, factors)


def _aligned(first: Sequence[int], second: Sequence[int]) -> tuple[list[slice], list[slice]]:
    """Two ways to split one index space into axes, cut where both have a boundary: which axes of each lie between the cuts."""
    ends = [np.cumprod(sizes).tolist() for sizes in (first, second)]
    common = sorted(set(ends[0]) & set(ends[1]))
    found = []
    for sizes in ends:
        # Axes of length 1 end where the one before does; they belong to what comes first.
        cuts = [0, *(len(sizes) - sizes[::-1].index(end) for end in common)]
        found.append([slice(low, high) for low, high in itertools.pairwise(cuts)])
    return found[0], found[1]
