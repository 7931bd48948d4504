"""Trace by Hutchinson's estimator, with the leading eigenvalues taken out first."""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch

from anarch_core.curvature.basis import orthogonalise
from anarch_core.curvature.leading import Eigenpairs
from anarch_core.curvature.operators import AbstractOperator


@attrs.frozen(kw_only=True)
class TraceEstimate:
    """A trace and its statistical error.

    Attributes:
        value: the estimate.
        standard_error: of the mean over the samples; NaN for a single sample.
        samples: random vectors, one product each.
        deflated: what the eigenvalues taken out add up to; their share is exact to rounding.
    """

    value: float
    standard_error: float
    samples: int
    deflated: float


def trace(
    operator: AbstractOperator,
    *,
    generator: torch.Generator,
    samples: int = 20,
    leading: Eigenpairs | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> TraceEstimate:
    """Estimate the trace: ``tr(Q'HQ)`` of known directions, and random sign vectors for the rest (Hutchinson 1990; Meyer et al. 2021).

    Args:
        operator: the matrix, H.
        generator: on the operator's device.
        samples: random vectors.
        leading: Ritz pairs of H; they carry most of the variance, and taking them out costs no product.
        progress: called with (samples done, samples).
    """
    known = math.fsum(eigenvalue.value for eigenvalue in leading.eigenvalues) if leading else 0.0
    drawn = []
    for sample in range(samples):
        vector = operator.vectors.signs(generator)
        if leading:
            orthogonalise(vector, leading.vectors, operator.vectors)
        drawn.append(operator.vectors.dot(vector, operator @ vector))
        progress(sample + 1, samples)
    values = torch.tensor(drawn, dtype=torch.float64)
    error = float(values.std() / math.sqrt(samples)) if samples > 1 else math.nan
    return TraceEstimate(value=known + float(values.mean()), standard_error=error, samples=samples, deflated=known)
