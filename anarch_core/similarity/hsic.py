"""The unbiased estimator of HSIC with linear kernels, and the similarity that is made of it.

The estimator of Song et al. (2012), equation 5, is an inner product: with U-centred Gram matrices K̃ and L̃ (Székely and Rizzo 2014, equation
3.2), it is ``⟨K̃, L̃⟩ / (n (n − 3))``. So that of a matrix with itself is not negative, and CKA made of it lies between −1 and 1.
"""

from __future__ import annotations

import torch

from anarch_core.errors import ProbeError

FEWEST = 4
"""Samples that the estimator takes at least."""

NUMBERS = 2**20
"""Numbers of features that are held in double precision at once."""

ROUNDING = 30.0
"""Outputs that vary by less, in units of rounding of their dtype, are the same for all samples."""

DEGENERATE = 1e-12
"""Likewise, where U-centring leaves less of a Gram matrix: one sample alone differs from all others."""


def add_gram(gram: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Add to a Gram matrix that of some features, centred, a block of them at a time.

    Args:
        gram: [n, n], float64; changed.
        features: [n, p], of any real dtype.

    Returns:
        what rounding of the features may make of an entry of a matrix that is zero, times n: float64, [].
    """
    size = torch.zeros((), dtype=torch.float64, device=gram.device)
    for part in torch.split(features, max(1, NUMBERS // len(features)), 1):
        block = part.double()
        size += torch.linalg.vector_norm(block).square()
        block = block - block.mean(0)  # not in place: doubles are no copy
        gram.addmm_(block, block.T)
    return size * (ROUNDING * torch.finfo(features.dtype).eps) ** 2


def u_centre(grams: torch.Tensor) -> torch.Tensor:
    """U-centre Gram matrices in place: rows and columns without the diagonal sum to zero, the diagonal is zero.

    Args:
        grams: [..., n, n] with n of at least 4, symmetric, float64; changed.

    Returns:
        the same tensor.
    """
    n = grams.shape[-1]
    grams.diagonal(dim1=-2, dim2=-1).zero_()
    rows = grams.sum(-1) / (n - 2)
    total = rows.sum(-1) / (n - 1)
    grams.sub_(rows[..., :, None]).sub_(rows[..., None, :]).add_(total[..., None, None])
    grams.diagonal(dim1=-2, dim2=-1).zero_()
    return grams


def require_samples(n: int) -> None:
    """Refuse fewer samples than the estimator takes.

    Raises:
        ProbeError: they are too few.
    """
    if n < FEWEST:
        msg = f"the unbiased estimator of HSIC takes at least {FEWEST} samples at once, got {n}; take more samples, or larger minibatches"
        raise ProbeError(msg)


def unbiased_hsic(k: torch.Tensor, l: torch.Tensor) -> float:  # noqa: E741
    """The unbiased estimate of HSIC (Song et al. 2012, equation 5); may be negative.

    Args:
        k: Gram matrix of one representation, [n, n], symmetric.
        l: of the other, of the same samples.

    Raises:
        ProbeError: there are fewer than 4 samples.
    """
    n = len(k)
    require_samples(n)
    first, second = (u_centre(gram.detach().to(torch.float64, copy=True)) for gram in (k, l))
    return float((first * second).sum()) / (n * (n - 3))


def linear_cka(x: torch.Tensor, y: torch.Tensor) -> float | None:
    """Debiased CKA with linear kernels of two representations of the same samples, between −1 and 1.

    Args:
        x: [n, ...], features of n samples, real numbers.
        y: [n, ...], likewise, with as many features or not.

    Returns:
        ``HSIC(X, Y) / √(HSIC(X, X) HSIC(Y, Y))`` with the unbiased estimator of all n samples at once; None where one representation is
        the same for all samples, or not finite.

    Raises:
        ProbeError: there are fewer than 4 samples, or other ones in y.
    """
    if len(x) != len(y):
        msg = f"representations are compared sample by sample, and there are {len(x)} samples of one and {len(y)} of the other"
        raise ProbeError(msg)
    require_samples(len(x))
    grams = torch.zeros(2, len(x), len(x), dtype=torch.float64, device=x.device)
    flat = (each.detach().to(x.device).reshape(len(x), -1) for each in (x, y))
    rounding = torch.stack([add_gram(gram, features) for gram, features in zip(grams, flat, strict=True)])
    before = torch.linalg.vector_norm(grams.flatten(1), dim=1)
    centred = u_centre(grams).flatten(1)
    product = centred @ centred.T
    own = product.diagonal()
    known = bool(varies(own.sqrt(), before, rounding).all())
    return float((product[0, 1] / own.sqrt().prod()).clamp(-1, 1)) if known else None


def varies(norms: torch.Tensor, before: torch.Tensor, rounding: torch.Tensor) -> torch.Tensor:
    """Whether representations vary between samples, by more than rounding; nowhere true for what is not finite.

    Args:
        norms: of the U-centred Gram matrices.
        before: of these matrices before that.
        rounding: what :func:`add_gram` gave.
    """
    return norms > torch.maximum(DEGENERATE * before, rounding)
