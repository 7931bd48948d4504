"""The family of convolutions whose kernel reaches every pixel from every position."""

from __future__ import annotations

import attrs
import numpy as np

from anarch_core.lattice import NOTHING, AbstractFamily, Axis, Incidence, Index


@attrs.frozen
class GlobalKernel(AbstractFamily):
    """Shared, not local; on each axis the label is the displacement from the position's anchor to the pixel.

    On a circular axis displacements are counted modulo its size. Where padding reflects or replicates, pixels are
    reached through the padding too, as by a convolution with a kernel of that size.
    """

    name: str = "shared"
    local: bool = False

    def window(self, axis: Axis) -> tuple[int, int]:
        """Lowest displacement along an axis and how many there are."""
        if axis.mode == "circular":
            return 0, axis.size
        low, high = -axis.stride * (axis.positions - 1), axis.size - 1
        if axis.mode != "zeros":
            low, high = min(low, -axis.before), max(high, axis.dilation * (axis.kernel - 1) - axis.before)
        return low, high - low + 1

    def crossed(self, axis: Axis) -> Index:
        """Pixel under every virtual coordinate that the kernel comes across, from its first place at the first position to its last."""
        low, labels = self.window(axis)
        return axis.fold(low + np.arange(axis.stride * (axis.positions - 1) + labels))

    def incidence(self, axis: Axis) -> Incidence:
        """Labels of the weights along one axis: displacements, from the lowest."""
        low, labels = self.window(axis)
        anchor = np.arange(axis.positions)[:, None] * axis.stride
        pixel = axis.fold(anchor + low + np.arange(labels)[None, :])
        position, label = np.nonzero(pixel != NOTHING)
        return Incidence(position * axis.size + pixel[position, label], label, labels, axis.positions * axis.size)

    def bias_labels(self, axis: Axis) -> Index:
        """One label for all positions."""
        return np.zeros(axis.positions, dtype=np.int64)


GLOBAL = GlobalKernel()
