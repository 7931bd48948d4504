"""How ``torchrun`` says which of several processes, on one machine or several, this one is."""

from __future__ import annotations

import os

import attrs

from anarch_core.errors import ConfigError


@attrs.frozen(kw_only=True)
class Launch:
    """How ``torchrun`` started this process.

    Attributes:
        rank: its number among all; the first is 0.
        size: how many there are.
        local_rank: its number among those of its machine.
        local_size: how many there are on its machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int

    @classmethod
    def of_this_process(cls) -> Launch | None:
        """None where it was started in another way."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        if "TORCHELASTIC_RUN_ID" not in os.environ or not all(os.environ.get(name, "").isdecimal() for name in names):
            return None
        rank, size, local_rank, local_size = (int(os.environ[name]) for name in names)
        return cls(rank=rank, size=size, local_rank=local_rank, local_size=local_size)

    def device(self, device: str) -> str:
        """Of this process, where the run is on that one: with cards, the one of its number."""
        return f"cuda:{self.local_rank}" if device.startswith("cuda") else device

    def require(self, shards: int, device: str) -> None:
        """Refuse a run that is not for so many processes.

        Args:
            shards: how many processes are to train a segment together.
            device: of the run, as the user says it.

        Raises:
            ConfigError: it is for another number, or names cards.
        """
        if shards != self.size:
            msg = (
                f"torchrun started {self.size} processes, and the run is trained by {shards} together; "
                f"say --shards {self.size}, or let torchrun start {shards}"
            )
            raise ConfigError(msg)
        if ":" in device:
            msg = f"device {device!r} names cards, and torchrun gives each process the card of its number; say --device cuda"
            raise ConfigError(msg)
