"""What training takes of a machine, whichever it is."""

from __future__ import annotations

import attrs

SMALL_MODEL = 32 * 2**20
"""Bytes of parameters below which one thread does as well as many, and several segments are better trained side by side."""


@attrs.frozen(kw_only=True)
class Need:
    """What a process takes that trains any segment of a run.

    Attributes:
        peak_bytes: the most that it takes for networks, the data set and PyTorch left out, in the memory of the device.
        work: what it takes that for, e.g. ``"training (efcn)"``.
        model_bytes: parameters of the largest network.
    """

    peak_bytes: int
    work: str
    model_bytes: int

    @property
    def small(self) -> bool:
        """Whether one thread does as well as many."""
        return self.model_bytes < SMALL_MODEL
