"""Options of the probe ``hessian``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class HessianOptions:
    """What to measure beyond the largest eigenvalue, and on how many samples."""

    samples: int = attrs.field(
        default=1000,
        validator=between(1, 10**9),
        metadata=opt("Training samples, class-balanced and the same every time; few samples overestimate the largest eigenvalue."),
    )
    batch_size: int = attrs.field(
        default=1000, validator=between(1, 10**9), metadata=opt("Samples at once; bounds memory, changes no result.")
    )
    rtol: float = attrs.field(
        default=1e-2,
        converter=float,
        validator=between(0, 1, above=True, below=True),
        metadata=opt("Residual to reach relative to the eigenvalue; its error bound reaches 10 rtol, its error about rtol²."),
    )
    max_products: int = attrs.field(
        default=100,
        validator=between(2, 10**6),
        metadata=opt("Hessian-vector products after which an eigenvalue is given up as not converged."),
    )
    smallest: bool = attrs.field(default=False, metadata=opt("Also the most negative eigenvalue (about ten times the products)."))
    top_k: int = attrs.field(
        default=0,
        validator=between(0, 1000),
        metadata=opt("Leading eigenvalues with eigenvectors; holds 2 k + 20 vectors as large as the network."),
    )
    eigenvectors: bool = attrs.field(
        default=False, metadata=opt("Keep the eigenvectors of top_k with the results; each is as large as the network.")
    )
    trace: int = attrs.field(default=0, validator=between(0, 10**6), metadata=opt("Random vectors for the trace; one product each."))
    density: int = attrs.field(
        default=0, validator=between(0, 10**6), metadata=opt("Random vectors for the spectral density; 'density_steps' products each.")
    )
    density_steps: int = attrs.field(
        default=40, validator=between(2, 1000), metadata=opt("Lanczos steps for each random vector of the density.")
    )
    gauss_newton: bool = attrs.field(default=False, metadata=opt("Also the largest eigenvalue of the generalised Gauss-Newton matrix."))
    subspaces: tuple[Literal["shared", "unshared", "off-local"], ...] = attrs.field(
        default=("shared",),
        metadata=opt("Also the largest eigenvalue on these parts of parameter space, in coordinates that a CNN and its eFCN share."),
    )
    layers: bool = attrs.field(default=False, metadata=opt("Also the largest eigenvalue of the diagonal block of every layer."))
    subsets: int = attrs.field(
        default=0,
        validator=between(0, 1000),
        metadata=opt("Also the largest eigenvalue on this many disjoint parts of the samples: how much the choice of samples matters."),
    )
