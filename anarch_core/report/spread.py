"""A quantity over seeds: its mean, how much seeds differ, and how far the mean is known."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Iterable

import attrs

CONFIDENCE = 0.95
FEWEST = 3
"""Seeds from which on there is an interval: that of two is thirteen standard deviations wide to each side and says nothing."""


@attrs.frozen
class Spread:
    """A quantity over seeds.

    Attributes:
        mean: over the seeds.
        deviation: sample standard deviation, 0 for a single seed.
        count: how many seeds.
    """

    mean: float
    deviation: float
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        """Sum up the values that are there; None if there are none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        return cls(statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else 0.0, len(known))

    @property
    def margin(self) -> float | None:
        """Half the width of the 95 % t-interval of the mean (Student 1908); None where there are fewer than three seeds."""
        return _quantile(self.count - 1) * self.deviation / self.count**0.5 if self.count >= FEWEST else None

    @property
    def interval(self) -> tuple[float, ...]:
        """Both ends of that interval; empty where there is none."""
        return () if self.margin is None else (self.mean - self.margin, self.mean + self.margin)


@functools.cache
def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))
