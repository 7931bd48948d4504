"""Data held as tensors on one device; batch order is a function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import torch


@attrs.frozen(kw_only=True)
class TensorData:
    """A classification data set, whole, in memory.

    Attributes:
        name: how users call it.
        x_train: inputs, float32, [n, channels, *spatial], already normalised.
        y_train: labels, int64, [n].
        x_test: as ``x_train``; only ever reported, never chosen by.
        y_test: as ``y_train``.
        x_validation: a held-out part of the training set, or None.
        y_validation: its labels, or None.
        classes: number of classes.
        class_names: names for figures, empty when unknown.
    """

    name: str
    x_train: torch.Tensor
    y_train: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor
    x_validation: torch.Tensor | None = None
    y_validation: torch.Tensor | None = None
    classes: int
    class_names: Sequence[str] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch dimension."""
        return tuple(self.x_train.shape[1:])
