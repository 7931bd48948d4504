"""How alike kernels are, and in how many directions one is large."""

from __future__ import annotations

import torch


def centred(kernel: torch.Tensor) -> torch.Tensor:
    """``H K H`` with ``H = 1 - 11'/n``: the kernel of features less their mean over the samples, [n, n]."""
    return kernel - kernel.mean(0, keepdim=True) - kernel.mean(1, keepdim=True) + kernel.mean()


def centred_alignment(kernel: torch.Tensor, other: torch.Tensor) -> float | None:
    """``<HKH, HLH> / (|HKH| |HLH|)``: at most 1, and at least 0 between positive semi-definite kernels.

    Of Cristianini et al. 2001, centred as by Cortes, Mohri and Rostamizadeh 2012.

    Args:
        kernel: [n, n].
        other: [n, n].

    Returns:
        None where one of them is zero but for rounding, once centred, or not finite.
    """
    return _cosine(kernel, centred(kernel), other, centred(other))


def kernel_distance(kernel: torch.Tensor, other: torch.Tensor) -> float | None:
    """``1 - <K, L> / (|K| |L|)``, which scale does not change (Fort et al. 2020); None where one is zero or not finite."""
    cosine = _cosine(kernel, kernel, other, other)
    return None if cosine is None else max(0.0, 1 - cosine)


def effective_rank(values: torch.Tensor) -> float | None:
    """``exp`` of the entropy of eigenvalues that are scaled to a sum of 1 (Roy and Vetterli 2007).

    Args:
        values: of a positive semi-definite matrix, [n]; rounding below zero is taken for zero.

    Returns:
        from 1 to n; None where all are zero, or one is not finite.
    """
    shares = values.double().clamp(min=0)
    total = shares.sum()
    if not (bool(total.isfinite()) and bool(total > 0)):
        return None
    return float(torch.special.entr(shares / total).sum().exp())


def _cosine(kernel: torch.Tensor, left: torch.Tensor, other: torch.Tensor, right: torch.Tensor) -> float | None:
    lengths = [float(left.norm()), float(right.norm())]
    floors = [1e-13 * float(kernel.norm()), 1e-13 * float(other.norm())]
    if not all(floor < length < float("inf") for floor, length in zip(floors, lengths, strict=True)):
        return None
    return min(1.0, float((left / lengths[0] * (right / lengths[1])).sum()))
