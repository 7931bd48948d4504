"""A space that Lanczos' method spans from one or several vectors, held as a basis."""

from __future__ import annotations

import math

import torch

from anarch_core.curvature.basis import combine, empty_basis, orthogonalise
from anarch_core.curvature.bounds import ROUNDING
from anarch_core.curvature.operators import AbstractOperator
from anarch_core.errors import ProbeError


class Subspace:
    """A space that grows by products, what the matrix is in it, and where it leads out of it.

    Attributes:
        operator: the matrix.
        count: leading Ritz pairs that are wanted, k.
        sign: of the matrix, so that the leading values are the largest.
        basis: orthonormal vectors, W, [room, length].
        filled: how many of them there are, m.
        pending: directions out of the space, each at most of unit length.
        values: Ritz values, descending, [m].
        residuals: theirs, [m].
        spill: ``R'R`` of the residuals ``R`` of the Ritz vectors, [m, m].
        floor: residual that rounding leaves.
        products: how many it took to grow.
        restarts: how often the basis was full.
    """

    def __init__(self, operator: AbstractOperator, count: int, room: int, *, sign: int) -> None:
        """Begin with nothing.

        Args:
            operator: the matrix.
            count: leading Ritz pairs that are wanted, k.
            room: vectors to hold.
            sign: 1 if the largest eigenvalues lead, -1 if the smallest do: all here is of the matrix times this.
        """
        self.operator = operator
        self.count = count
        self.sign = sign
        self.basis = empty_basis(operator, room)
        self.filled = self.products = self.restarts = 0
        self.pending: list[torch.Tensor] = []
        self.floor = 0.0
        self._projected = torch.zeros(room, room, dtype=torch.float64)
        self._links = torch.zeros(0, room, dtype=torch.float64)  # residuals of W are the pending directions times these

    def start(self, generator: torch.Generator) -> bool:
        """Let the space grow in a random direction too, if there is one outside."""
        vector = self.outside(generator)
        if vector is not None:
            self._append(vector, torch.zeros(len(self.basis), dtype=torch.float64))
        return vector is not None

    def outside(self, generator: torch.Generator) -> torch.Tensor | None:
        """A random unit vector orthogonal to the space; None if there is none."""
        if self.filled == self.operator.size:
            return None
        vector = self.operator.random_unit(generator)
        orthogonalise(vector, self.basis[: self.filled], self.operator.vectors)
        length = float(self.operator.vectors.norm(vector))
        return vector.div_(length) if length > ROUNDING * torch.finfo(vector.dtype).eps else None

    def expand(self) -> None:
        """Take the oldest pending direction into the basis, by one product."""
        if self.filled == len(self.basis):
            self._restart()
        vectors = self.operator.vectors
        vector, self._links = self.pending.pop(0), self._links[1:]
        orthogonalise(vector, self.basis[: self.filled], vectors)
        vector.div_(vectors.norm(vector))
        self.basis[self.filled] = vector
        self.filled += 1
        for other in self.pending:
            other.sub_(vector, alpha=vectors.dot(vector, other))
        following = (self.operator @ vector).mul_(self.sign)
        self.products += 1
        row = orthogonalise(following, self.basis[: self.filled], vectors).to(device="cpu", dtype=torch.float64)
        length = float(vectors.norm(following))
        if not (row.isfinite().all() and math.isfinite(length)):
            msg = f"a product with the matrix is not finite after {self.products} steps; the network may have diverged"
            raise ProbeError(msg)
        self._projected[: self.filled, self.filled - 1] = self._projected[self.filled - 1, : self.filled] = row
        link = torch.zeros(len(self.basis), dtype=torch.float64)
        link[self.filled - 1] = length
        self._append(following.div_(length) if length else following, link)
        self._analyse()

    def without(self, vector: torch.Tensor) -> torch.Tensor:
        """A vector, changed in place, less its components along the leading Ritz vectors."""
        basis, weights = self.basis[: self.filled], self._leading
        for _ in range(2):
            components = self.operator.vectors.components(basis, vector.to(basis.device))
            vector.sub_((weights @ (weights.T @ components) @ basis).to(vector.device))
        return vector

    def _append(self, vector: torch.Tensor, link: torch.Tensor) -> None:
        self.pending.append(vector)
        self._links = torch.cat([self._links, link[None]])

    def _analyse(self) -> None:
        values, components = torch.linalg.eigh(self._projected[: self.filled, : self.filled])
        self.values, self._components = values.flip(0), components.flip(1)
        self.floor = ROUNDING * torch.finfo(self.operator.dtype).eps * float(values.abs().max())
        self._drop()
        links = self._links[:, : self.filled] @ self._components
        self.spill = links.T @ self.operator.vectors.gram(self.pending) @ links
        self.residuals = self.spill.diagonal().clamp_min(0).sqrt().clamp_min(self.floor)

    def _drop(self) -> None:
        """Forget directions that lead nowhere: a Krylov space is exhausted, or two have met."""
        shortest = ROUNDING * torch.finfo(self.operator.dtype).eps
        weights = map(float, self._links.norm(dim=1))
        lengths = [float(self.operator.vectors.norm(vector)) for vector in self.pending]
        kept = [
            index
            for index, (length, weight) in enumerate(zip(lengths, weights, strict=True))
            if length > shortest and (weight == 0 or length * weight > self.floor)
        ]
        self.pending = [self.pending[index] for index in kept]
        self._links = self._links[kept]

    def _restart(self) -> None:
        room = len(self.basis)
        kept = self.count + (room - self.count) // 2
        combine(self.basis, self._components[:, :kept])
        self._links[:, :kept] = self._links[:, : self.filled] @ self._components[:, :kept]
        self._links[:, kept:] = 0
        self._projected = torch.zeros(room, room, dtype=torch.float64)
        self._projected[:kept, :kept] = torch.diag(self.values[:kept])
        self.filled = kept
        self.restarts += 1

    @property
    def _leading(self) -> torch.Tensor:
        """The leading Ritz vectors in the basis, [m, k]."""
        vectors: torch.Tensor = self._components[:, : self.count].to(self.basis)
        return vectors

    def vectors(self) -> torch.Tensor:
        """The leading Ritz vectors, [k, length], where the basis is."""
        return self._leading.mT @ self.basis[: self.filled]

    def below(self, rank: int, upper: float, value: float, distance: float) -> bool:
        """Whether the matrix has no more eigenvalues above a limit than there are before a rank.

        Args:
            rank: 0 is the leading one.
            upper: bound of the matrix outside of the leading Ritz vectors.
            value: of that rank.
            distance: of the limit from the value.
        """
        room = value + distance - upper
        if room <= 0:
            return False
        k = self.count
        pushed = torch.diag(self.values[:k] - value) + self.spill[:k, :k] / room
        return float(torch.linalg.eigvalsh(pushed)[-1 - rank]) <= distance
