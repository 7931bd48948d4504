"""Matrix-free curvature of a loss: products with its Hessian, Lanczos, spectral density and trace.

Nothing here knows of relaxations or probes: an operator is anything symmetric that multiplies a flat vector, and every number comes
with what is needed to judge it (residual, bound, number of products, standard error). A door for authors of probes.
"""

from __future__ import annotations

from anarch_core.curvature.bounds import Eigenvalue
from anarch_core.curvature.density import SpectralDensity, spectral_density
from anarch_core.curvature.lanczos import extreme_eigenvalues
from anarch_core.curvature.leading import Eigenpairs, eigenpairs
from anarch_core.curvature.operators import AbstractOperator, ProjectedOperator, ScaledOperator
from anarch_core.curvature.risk import GaussNewtonOperator, HessianOperator, Risk
from anarch_core.curvature.trace_estimate import TraceEstimate, trace

__all__ = [
    "AbstractOperator",
    "Eigenpairs",
    "Eigenvalue",
    "GaussNewtonOperator",
    "HessianOperator",
    "ProjectedOperator",
    "Risk",
    "ScaledOperator",
    "SpectralDensity",
    "TraceEstimate",
    "eigenpairs",
    "extreme_eigenvalues",
    "spectral_density",
    "trace",
]
