"""Matrix-free curvature of a loss: products with its Hessian, Lanczos, spectral density, trace; how much it rises nearby; tangent kernels.

Nothing here knows of relaxations or probes: an operator is anything symmetric that multiplies a flat vector, and every number comes
with what is needed to judge it (residual, bound, number of products, standard error). A door for authors of probes.
"""

from __future__ import annotations

from anarch_core.curvature.bounds import Eigenvalue
from anarch_core.curvature.density import SpectralDensity, spectral_density
from anarch_core.curvature.kernel_alignment import centred, centred_alignment, effective_rank, kernel_distance
from anarch_core.curvature.lanczos import extreme_eigenvalues
from anarch_core.curvature.leading import Eigenpairs, eigenpairs
from anarch_core.curvature.neighbourhood import Neighbourhood
from anarch_core.curvature.operators import AbstractOperator, ProjectedOperator, ScaledOperator
from anarch_core.curvature.risk import GaussNewtonOperator, HessianOperator, Risk
from anarch_core.curvature.sharpness import (
    Ascent,
    AverageSharpness,
    WorstSharpness,
    average_sharpness,
    sam_sharpness,
    worst_sharpness,
)
from anarch_core.curvature.tangent import TangentKernel, tangent_kernel
from anarch_core.curvature.trace_estimate import TraceEstimate, trace
from anarch_core.curvature.vectors import Vectors

__all__ = [
    "AbstractOperator",
    "Ascent",
    "AverageSharpness",
    "Eigenpairs",
    "Eigenvalue",
    "GaussNewtonOperator",
    "HessianOperator",
    "Neighbourhood",
    "ProjectedOperator",
    "Risk",
    "ScaledOperator",
    "SpectralDensity",
    "TangentKernel",
    "TraceEstimate",
    "Vectors",
    "WorstSharpness",
    "average_sharpness",
    "centred",
    "centred_alignment",
    "effective_rank",
    "eigenpairs",
    "extreme_eigenvalues",
    "kernel_distance",
    "sam_sharpness",
    "spectral_density",
    "tangent_kernel",
    "trace",
    "worst_sharpness",
]
