"""Symmetric linear operators on flat vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from anarch_core.curvature.vectors import Vectors
from anarch_core.errors import ProbeError


class AbstractOperator(ABC):
    """A real symmetric matrix known by its products ``operator @ vector``.

    Args:
        size: number of rows.
        dtype: of the vectors it takes and gives.
        device: where they live.
        vectors: those it takes and gives, where several processes hold parts of them; an operator that is made of another passes on its
            own. By default each process holds them as a whole.

    Attributes:
        size: number of rows, P.
        dtype: of the vectors it takes and gives.
        device: where they live.
        vectors: their products and lengths, and random ones. Tensors have ``vectors.length`` numbers: all P of them, or those that this
            process holds.
        products: how many products were taken so far.
    """

    def __init__(self, *, size: int, dtype: torch.dtype, device: torch.device, vectors: Vectors | None = None) -> None:
        self.size = size
        self.dtype = dtype
        self.device = device
        self.vectors = Vectors(size, dtype, device) if vectors is None else vectors
        self.products = 0

    def __matmul__(self, vector: torch.Tensor) -> torch.Tensor:
        """Multiply.

        Args:
            vector: [length]; never changed.

        Returns:
            a new tensor, [length], which the caller may overwrite.

        Raises:
            ValueError: the vector has another shape or dtype.
        """
        out = torch.zeros(self.vectors.length, dtype=self.dtype, device=self.device)
        self.add_product(vector, out)
        return out

    def add_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        """Add the product to a vector, which takes one vector less than multiplying and then adding.

        Args:
            vector: [length]; never changed.
            out: [length], changed in place; another tensor.

        Raises:
            ValueError: ``vector`` has another shape or dtype.
        """
        if vector.shape != (self.vectors.length,) or vector.dtype != self.dtype:
            msg = f"expected a vector of shape ({self.vectors.length},) and {self.dtype}, got {tuple(vector.shape)} and {vector.dtype}"
            raise ValueError(msg)
        self.products += 1
        self._add_product(vector, out)

    def random_unit(self, generator: torch.Generator) -> torch.Tensor:
        """A vector uniform on the unit sphere of the space the matrix acts on, [length].

        Args:
            generator: on the operator's device.

        Raises:
            ProbeError: that space holds nothing but zero.
        """
        vector = self._confine(self.vectors.normal(generator))
        length = float(self.vectors.norm(vector))
        if length == 0:
            msg = "the subspace is empty: no parameter of the network lies in it"
            raise ProbeError(msg)
        return vector.div_(length)

    @abstractmethod
    def _add_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        """As :meth:`add_product`, of a vector that was checked."""

    def _confine(self, vector: torch.Tensor) -> torch.Tensor:
        """Project a vector onto the space the matrix acts on; all vectors unless a subclass says otherwise."""
        return vector


class MatrixOperator(AbstractOperator):
    """A dense symmetric matrix."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__(size=matrix.shape[0], dtype=matrix.dtype, device=matrix.device)
        self.matrix = matrix

    def _add_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        out.addmv_(self.matrix, vector)


class ProjectedOperator(AbstractOperator):
    """``P H P`` with an orthogonal projection ``P``: the curvature seen by an observer confined to the range of ``P``.

    Random vectors lie in the range, so that its spectrum is that of ``H`` compressed to the subspace in orthonormal coordinates, without
    the zeros of the complement.
    """

    def __init__(self, operator: AbstractOperator, project: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(size=operator.size, dtype=operator.dtype, device=operator.device, vectors=operator.vectors)
        self.operator = operator
        self.project = project

    def _add_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        out.add_(self.project(self.operator @ self.project(vector)))

    def _confine(self, vector: torch.Tensor) -> torch.Tensor:
        return self.project(vector)


class ScaledOperator(AbstractOperator):
    """``D H D`` with a diagonal ``D``: curvature in other units.

    With ``D = n^(-1/2)``, ``n`` the number of positions that share a weight, the Hessian of a CNN is that of its eFCN on the CNN's subspace
    in orthonormal coordinates.
    """

    def __init__(self, operator: AbstractOperator, scale: torch.Tensor) -> None:
        super().__init__(size=operator.size, dtype=operator.dtype, device=operator.device, vectors=operator.vectors)
        self.operator = operator
        self.scale = scale

    def _add_product(self, vector: torch.Tensor, out: torch.Tensor) -> None:
        out.addcmul_(self.operator @ (self.scale * vector), self.scale)
