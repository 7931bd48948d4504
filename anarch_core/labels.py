"""Labels: class numbers, and what others are taken for."""

from __future__ import annotations

import torch


def labels_problem(y: torch.Tensor) -> str | None:
    """What is wrong with labels that are no class numbers, int64 [n], and what they probably are, to complete a message; else None."""
    if y.ndim == 1 and y.dtype == torch.int64:
        return None
    return f"labels are {described(y)}{_meaning(y)}, expected int64 [n], the number of its class for each sample"


def described(tensor: torch.Tensor) -> str:
    """Type and shape of a tensor, in a few words."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _meaning(y: torch.Tensor) -> str:
    if y.ndim == 2 and y.shape[1] > 1 and not y.is_complex():
        one_hot = len(y) > 0 and bool(((y != 0).sum(1) == 1).all() and (y.sum(1) == 1).all())
        return ", one-hot, of which y.argmax(1) makes class numbers" if one_hot else ", a row of targets for each sample"
    if y.ndim == 2 and y.shape[1] == 1:
        return ", with an axis too many, which y.squeeze(1) takes away"
    if y.ndim > 2:
        return ", a class for every position, as for segmentation"
    if y.ndim == 1 and y.is_floating_point():
        return ", targets of a regression, or class numbers that y.long() would make whole"
    return ""
