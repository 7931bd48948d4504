"""Channels by number, which of them are one, and which stay where they are."""

from __future__ import annotations

import numpy as np
import torch

FIXED = 0
"""Label of numbers that stay where they are."""

CONSTANT = -1
"""Label of numbers that are one constant in every channel (padding), so that permuting channels does not change them."""


class Channels:
    """The channels that are met on the way through a network, as disjoint sets.

    A tensor of labels stands beside a tensor of the network and is shaped as it: it says to which channel each number belongs. Channels
    that are added to each other are one from then on, and those that something needs where they are, are fixed.
    """

    def __init__(self) -> None:
        self._parents = np.zeros(1, dtype=np.int64)

    def fresh(self, count: int) -> torch.Tensor:
        """Labels of so many new channels, [count]; a channel that is alone has nothing to change places with, and is fixed."""
        if count == 1:
            return torch.full((1,), FIXED)
        first = len(self._parents)
        self._parents = np.append(self._parents, np.arange(first, first + count))
        return torch.arange(first, first + count)

    def roots(self, labels: torch.Tensor) -> torch.Tensor:
        """The labels, by one name for channels that are one."""
        found = labels.numpy()
        roots = self._parents[np.maximum(found, 0)]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                return torch.from_numpy(np.where(found == CONSTANT, CONSTANT, roots))
            roots = above

    def moving(self, labels: torch.Tensor) -> bool:
        """Whether any of the channels is not fixed."""
        return bool((self.roots(labels) > FIXED).any())

    def tie(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Make channels one, number by number; labels of what is computed of both, shaped as they are together."""
        a, b = torch.broadcast_tensors(self.roots(a), self.roots(b))  # type: ignore[no-untyped-call]
        apart = (a != b) & (a != CONSTANT) & (b != CONSTANT)
        for one, other in torch.unique(torch.stack([a[apart], b[apart]]), dim=1).T.tolist() if bool(apart.any()) else ():
            low, high = sorted((self._root(one), self._root(other)))
            self._parents[high] = low
        return torch.where(a == CONSTANT, b, a)

    def pin(self, labels: torch.Tensor) -> bool:
        """Have these channels stay where they are; whether any of them was not fixed."""
        moving = torch.unique(self.roots(labels))
        moving = moving[moving > FIXED]
        self._parents[moving.numpy()] = FIXED
        return bool(len(moving))

    def along(self, labels: torch.Tensor, axis: int) -> torch.Tensor | None:
        """The channel of each place along an axis, [size], where labels differ along no other; None where they do."""
        roots = self.roots(labels)
        axis %= roots.ndim
        if not roots.numel():
            return None
        vector = roots.movedim(axis, 0).flatten(1).amax(1)
        same = spread(vector, roots.shape, axis) == roots
        return vector.clamp(min=FIXED) if bool((same | (roots == CONSTANT)).all()) else None

    def axis(self, labels: torch.Tensor) -> tuple[int, torch.Tensor] | None:
        """The one axis along which labels differ, and the channels along it; None where there is none, or are several."""
        for axis in range(labels.ndim):
            vector = self.along(labels, axis)
            if vector is not None:
                return axis, vector
        return None

    def _root(self, label: int) -> int:
        while self._parents[label] != label:
            label = int(self._parents[label])
        return label


def spread(vector: torch.Tensor, shape: torch.Size, axis: int) -> torch.Tensor:
    """Labels along one axis, as those of a tensor of a shape."""
    axis %= len(shape)
    return vector.view(*[1] * axis, -1, *[1] * (len(shape) - axis - 1)).expand(shape)
