"""What training takes of a machine, whichever it is."""

from __future__ import annotations

import attrs

from anarch_core.errors import OutOfMemoryError
from anarch_core.machine import human_bytes

SMALL_MODEL = 32 * 2**20
"""Bytes of parameters below which one thread does as well as many, and several segments are better trained side by side."""


@attrs.frozen(kw_only=True)
class Need:
    """What a process takes that trains any segment of a run.

    Attributes:
        peak_bytes: the most that it takes for networks, the data set and PyTorch left out, in the memory of the device.
        work: what it takes that for, e.g. ``"training (efcn)"``.
        model_bytes: parameters of the largest network, or of the part of it that a process has.
    """

    peak_bytes: int
    work: str
    model_bytes: int

    @property
    def small(self) -> bool:
        """Whether one thread does as well as many."""
        return self.model_bytes < SMALL_MODEL

    def require_room(self, free: int, device: str) -> None:
        """Refuse a device on which a process that has the data there already has no room for its networks.

        Args:
            free: bytes that can be allocated there.
            device: its name.

        Raises:
            OutOfMemoryError: they do not fit.
        """
        if self.peak_bytes > free:
            msg = f"{self.work} needs {human_bytes(self.peak_bytes)}, but {device} has {human_bytes(free)} free; {self.advice}"
            raise OutOfMemoryError(msg, needed=self.peak_bytes, available=free)

    @property
    def advice(self) -> str:
        """What to do where not even one process has room."""
        smaller = "use a smaller network, relax fewer layers (--layers), or choose another --relax"
        return f"use a smaller --batch-size; {smaller}" if self.work.startswith("training") else smaller
