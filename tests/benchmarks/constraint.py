"""What drift needs of weights under linear constraints: an ungrouped depthwise convolution, and a circulant matrix made free."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from measure import OURS, Case, Step

from anarch_core.constraint import NOTHING, Constraint, Incidence

CHANNELS, TAPS = 1024, 9
SIZE = 3072


def depthwise() -> Constraint:
    """Labels on the diagonal of the channels, and none elsewhere."""
    label = np.where(np.eye(CHANNELS, dtype=bool), np.arange(CHANNELS)[:, None], NOTHING)
    return Constraint((CHANNELS, CHANNELS, TAPS), (CHANNELS, 1, TAPS), [Incidence.of(label, CHANNELS), Incidence.identity(TAPS)])


def circulant() -> Constraint:
    """A label for every diagonal."""
    label = (np.arange(SIZE)[:, None] - np.arange(SIZE)[None, :]) % SIZE
    return Constraint((SIZE, SIZE), (SIZE,), [Incidence.of(label, SIZE)])


CONSTRAINTS = {"an ungrouped depthwise convolution": depthwise, "a circulant matrix": circulant}


def weight(constraint: Constraint) -> torch.Tensor:
    return torch.randn(constraint.shape, generator=torch.Generator().manual_seed(0))


def norms_by_labels(values: torch.Tensor, label: torch.Tensor, labels: int) -> tuple[float, float, float]:
    """Squared norms of the three parts, with a label for every entry, counted from 1."""
    mask = (label > 0).to(values.dtype)
    counts = torch.bincount(label, minlength=labels + 1)
    sums = torch.zeros(labels + 1, dtype=torch.float64).index_add_(0, label, values.double())
    sharing = (sums / counts.clamp(min=1)).to(values.dtype)[label] * mask
    local = values * mask
    return tuple(float(part.double().square().sum()) for part in (sharing, local - sharing, values - local))


def of_every_entry(constraint: Constraint) -> tuple[torch.Tensor, int]:
    """The label of every entry, flat."""
    numbers = math.prod(constraint.parent_shape)
    return constraint.lift(torch.arange(1, numbers + 1, dtype=torch.float64).view(constraint.parent_shape)).long().flatten(), numbers


def ours(name: str) -> Step:
    constraint = CONSTRAINTS[name]()
    values = weight(constraint)
    return lambda: constraint.drift(values)


def by_labels(name: str) -> Step:
    constraint = CONSTRAINTS[name]()
    values, (label, numbers) = weight(constraint).flatten(), of_every_entry(constraint)
    return lambda: norms_by_labels(values, label, numbers)


def read_once(name: str) -> Step:
    values = weight(CONSTRAINTS[name]())
    return lambda: torch.linalg.vector_norm(values)


def case(name: str) -> Case:
    return Case(
        title=f"drift of {name}",
        contenders={
            "labels of every entry": functools.partial(by_labels, name),
            OURS: functools.partial(ours, name),
            "read the weights once": functools.partial(read_once, name),
        },
        flops=0,
        bytes=4 * math.prod(CONSTRAINTS[name]().shape),
    )
