"""At which losses contours are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import MaxNLocator

MOST = 9
"""Contours, at most."""

SPAN = 10
"""Ratio of the highest to the lowest loss from which contours are evenly spaced in its logarithm."""

DEEPEST = 1e-8
"""The lowest loss that there are contours for on a logarithmic scale, in parts of the highest."""

DIGITS = ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
"""First digits of contours on a logarithmic scale, from many to few."""


@attrs.frozen(kw_only=True)
class Levels:
    """Losses of contours.

    Attributes:
        values: increasing, at least two.
        logarithmic: evenly spaced in the logarithm, nearly.
    """

    values: Sequence[float]
    logarithmic: bool

    @classmethod
    def of(cls, losses: Sequence[np.ndarray[Any, Any]]) -> Levels:
        """For planes that are drawn side by side.

        Args:
            losses: of any shape; what is not finite is passed over, but something is.
        """
        known = np.concatenate([table[np.isfinite(table)] for table in losses])
        low, high = float(known.min()), float(known.max())
        if low > 0 and high > SPAN * low:
            return cls(values=_decades(max(low, DEEPEST * high), high), logarithmic=True)
        if high <= low:
            low, high = low - 0.5 * max(1.0, abs(low)), high + 0.5 * max(1.0, abs(high))
        return cls(values=[float(value) for value in MaxNLocator(MOST).tick_values(low, high)], logarithmic=False)

    def within(self, losses: np.ndarray[Any, Any]) -> list[float]:
        """Those that lie between the lowest and the highest of some losses."""
        known = losses[np.isfinite(losses)]
        return [value for value in self.values if known.min() < value < known.max()]

    def norm(self) -> Normalize:
        """What takes these losses to colours."""
        return (LogNorm if self.logarithmic else Normalize)(self.values[0], self.values[-1], clip=True)

    @property
    def spacing(self) -> str:
        """How they are spaced, in words."""
        return "evenly spaced in the logarithm of the loss" if self.logarithmic else "evenly spaced in the loss"


def _decades(low: float, high: float) -> list[float]:
    powers = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in DIGITS:
        found = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if 2 <= len(found) <= MOST:
            return found
    return [float(value) for value in np.geomspace(low, high, MOST)]
