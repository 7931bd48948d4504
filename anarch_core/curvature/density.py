"""Spectral density by stochastic Lanczos quadrature (Ubaru, Chen and Saad 2017; Ghorbani, Krishnan and Xiao 2019)."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch

from anarch_core.curvature.basis import empty_basis
from anarch_core.curvature.lanczos import tridiagonal_matrix, tridiagonalise
from anarch_core.curvature.operators import AbstractOperator


@attrs.frozen(kw_only=True)
class SpectralDensity:
    """A quadrature of the spectrum: the result is its nodes and weights; smoothing is for looking at it.

    Attributes:
        nodes: Ritz values, float64, [probes, steps].
        weights: theirs, non-negative, each row sums to 1; 0 where a Krylov space was exhausted early.
        products: products taken.
    """

    nodes: torch.Tensor
    weights: torch.Tensor
    products: int

    def moment(self, degree: int) -> float:
        """Estimate of ``trace(H^degree) / P``; for degree 1 and 2 each probe is exact for its random vector."""
        return float((self.weights * self.nodes**degree).sum(1).mean())

    def smoothed(self, points: int = 1000, width: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Density on a grid, as a sum of Gaussians.

        Args:
            points: size of the grid.
            width: standard deviation of the Gaussians, in units of the eigenvalues; by default the resolution of the quadrature,
                ``range / ((steps - 1) sqrt(8 log 3))`` (Papyan 2019), which follows the scale of the spectrum.

        Returns:
            grid and density, [points] each; the density integrates to 1 up to what leaves the grid.
        """
        low, high = float(self.nodes.min()), float(self.nodes.max())
        spread = max(high - low, torch.finfo(torch.float64).eps * max(abs(low), abs(high), torch.finfo(torch.float64).tiny))
        sigma = width or spread / (max(self.nodes.shape[1] - 1, 1) * math.sqrt(8 * math.log(3)))
        grid = torch.linspace(low - 3 * sigma, high + 3 * sigma, points, dtype=torch.float64)
        density = torch.zeros_like(grid)
        for node, weight in zip(self.nodes.flatten().tolist(), (self.weights / len(self.weights)).flatten().tolist(), strict=True):
            density += weight * torch.exp(-0.5 * ((grid - node) / sigma) ** 2)
        return grid, density / (sigma * math.sqrt(2 * math.pi))


def spectral_density(
    operator: AbstractOperator,
    *,
    generator: torch.Generator,
    probes: int = 4,
    steps: int = 40,
    reorthogonalise: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> SpectralDensity:
    """Estimate the distribution of all eigenvalues.

    The number of probes matters more than that of steps; at many parameters one probe averages over itself.

    Args:
        operator: the matrix.
        generator: random starts, on the operator's device.
        probes: random vectors.
        steps: Lanczos steps (products) for each.
        reorthogonalise: hold all Lanczos vectors of a probe and keep them orthogonal. Without, eigenvalues are repeated with their weight
            divided among the copies, which changes no integral.
        progress: called with (products done, products in all).
    """
    steps = min(steps, operator.size)
    nodes = torch.zeros(probes, steps, dtype=torch.float64)
    weights = torch.zeros(probes, steps, dtype=torch.float64)
    basis = empty_basis(operator, steps) if reorthogonalise else None
    before = operator.products
    for probe in range(probes):
        diagonal: list[float] = []
        off_diagonal: list[float] = []
        for alpha, beta in tridiagonalise(operator, operator.random_unit(generator), basis=basis):
            diagonal.append(alpha)
            progress(probe * steps + len(diagonal), probes * steps)
            if len(diagonal) == steps:
                break
            off_diagonal.append(beta)
        values, components = torch.linalg.eigh(tridiagonal_matrix(diagonal, off_diagonal[: len(diagonal) - 1]))
        nodes[probe, : len(values)] = values
        nodes[probe, len(values) :] = values[-1]
        weights[probe, : len(values)] = components[0] ** 2
    return SpectralDensity(nodes=nodes, weights=weights, products=operator.products - before)
