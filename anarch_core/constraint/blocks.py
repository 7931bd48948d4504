"""Sums and norms over a weight read block by block: nothing of the weight's size is made, and entries that are zero are only read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from anarch_core.constraint.incidence import Incidence

BLOCK = 2**17  # numbers that stay in a processor's cache in float64, with what is computed of them


def sums(first: Incidence, values: torch.Tensor) -> torch.Tensor:
    """Sums over the entries of each label of the first factor, [labels, ...], float64.

    Args:
        first: in which no entry has two labels.
        values: [entries, ...].
    """
    total = values.new_zeros((first.labels, *values.shape[1:]), dtype=torch.float64)
    for rows, label in _blocks(first, values):
        live = label >= 0
        if bool(live.all()):
            total.index_add_(0, label, rows.double())
        elif bool(live.any()):
            total.index_add_(0, label[live], rows[live].double())
    return total


def norms(factors: Sequence[Incidence], values: torch.Tensor, theta: torch.Tensor) -> tuple[float, float]:
    """Squared norms of a weight's unshared and off-local parts.

    Args:
        factors: of the constraint; in the first no entry has two labels.
        values: the weight, [entries of each factor].
        theta: the nearest constrained weight, float64, [labels of each factor].
    """
    others = list(enumerate(factors))[1:]
    everywhere = all(factor.covered.all() for _, factor in others)
    unshared = off_local = 0.0
    for rows, label in _blocks(factors[0], values):
        live = label >= 0
        if not bool(live.all()):
            off_local += norm2(rows[~live])
            rows, label = rows[live], label[live]
        if not len(rows):
            continue
        shared = theta.index_select(0, label)
        local = rows.double()
        for axis, factor in others:
            shared = factor.lift(shared, axis)
        if not everywhere:
            inside = local
            for axis, factor in others:
                inside = inside * factor.mask(inside, axis)
            off_local += norm2(local - inside)
            local = inside
        unshared += norm2(local - shared)
    return unshared, off_local


def norm2(values: torch.Tensor) -> float:
    """Squared norm, accumulated in float64."""
    return float(torch.linalg.vector_norm(values, dtype=torch.float64).square())


def _blocks(first: Incidence, values: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Rows of the first axis with their labels; ``NOTHING`` (-1) for an entry without one."""
    label = torch.from_numpy(first.label_of).to(values.device)
    height = max(BLOCK // max(math.prod(values.shape[1:]), 1), 1)
    return zip(torch.split(values, height), torch.split(label, height), strict=True)
