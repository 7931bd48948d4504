"""The processes that hold one network together, and what they tell one another: collectives of ``torch.distributed``, nothing else.

Every process runs the same program, in step. What they say to each other is the same on all of them and comes in one order, so a decision
that depends on a clock, a signal or a file is taken by the first process and told to the others (:meth:`Shards.agreed`).
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist

from anarch_core.errors import LostProcessError, one_line

T = TypeVar("T")


class Shards:
    """The processes among which the output channels of large layers are shared out.

    Copies of a network hold on to the same instance.

    Args:
        group: of ``torch.distributed``; all processes if None.

    Attributes:
        rank: number of this process, from 0.
        size: how many there are, P.
        sent: bytes that this process has sent so far in gathers and sums, as a ring of processes sends them.
    """

    rank: int
    size: int
    sent: int = 0

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._ranks = dist.get_process_group_ranks(group or dist.group.WORLD)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __copy__(self) -> Self:
        return self

    @property
    def leads(self) -> bool:
        """Whether this is the first process, which alone decides, writes and tells."""
        return self.rank == 0

    def stretch(self, channels: int, rank: int | None = None) -> range:
        """The channels that a process holds of so many: as equal stretches as can be, the longer ones first.

        Args:
            channels: of the whole.
            rank: of the process; this one's by default.
        """
        rank = self.rank if rank is None else rank
        shortest, longer = divmod(channels, self.size)
        start = rank * shortest + min(rank, longer)
        return range(start, start + shortest + (rank < longer))

    def gathered(self, part: torch.Tensor, dim: int, channels: int) -> torch.Tensor:
        """The whole of what every process has a stretch of channels of, on every process.

        Args:
            part: this process's stretch.
            dim: of the channels.
            channels: of the whole.
        """
        lengths = [len(self.stretch(channels, rank)) for rank in range(self.size)]
        own = part.detach()
        if own.shape[dim] < lengths[0]:  # a gather takes stretches of one length
            own = torch.cat([own, own.new_zeros(*own.shape[:dim], lengths[0] - own.shape[dim], *own.shape[dim + 1 :])], dim)
        own = own.contiguous()
        parts = self._all_gather(own)
        self.sent += own.nbytes * (self.size - 1)
        return torch.cat([each.narrow(dim, 0, length) for each, length in zip(parts, lengths, strict=True)], dim).contiguous()

    def summed(self, part: torch.Tensor) -> torch.Tensor:
        """The sum over all processes of tensors of one shape, on every process; a new tensor."""
        total = part.detach().clone(memory_format=torch.contiguous_format)
        self._all_reduce(total)
        self.sent += 2 * total.nbytes * (self.size - 1) // self.size
        return total

    def totals(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes of numbers, in float64."""
        total = torch.tensor(list(values), dtype=torch.float64, device="cpu")
        self._all_reduce(total)
        return total.tolist()

    def agreed(self, value: T) -> T:
        """What the first process says, on every process; what the others give is not looked at. Anything that can be pickled."""
        with told():
            data = pickle.dumps(value) if self.leads else b""
            length = torch.tensor([len(data)], dtype=torch.int64)
            dist.broadcast(length, self._ranks[0], group=self._group)
            text = torch.frombuffer(bytearray(data), dtype=torch.uint8) if self.leads else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(text, self._ranks[0], group=self._group)
        return value if self.leads else pickle.loads(text.numpy().tobytes())

    def copied_from_first(self, tensor: torch.Tensor) -> None:
        """Give a tensor, in place, the numbers that it has in the first process."""
        with told():
            dist.broadcast(tensor.detach(), self._ranks[0], group=self._group)

    def meet(self) -> None:
        """Wait until all processes are here."""
        self.totals([0.0])

    def send(self, tensor: torch.Tensor) -> None:
        """Give a contiguous tensor in the host's memory to the first process."""
        with told():
            dist.send(tensor, self._ranks[0], group=self._group)

    def receive(self, into: torch.Tensor, rank: int) -> None:
        """Take what a process gives by :meth:`send`; called by the first.

        Args:
            into: a contiguous tensor in the host's memory, of the same shape and dtype.
            rank: of the process.
        """
        with told():
            dist.recv(into, self._ranks[rank], group=self._group)

    def _all_gather(self, own: torch.Tensor) -> list[torch.Tensor]:
        parts = [torch.empty_like(own) for _ in range(self.size)]
        with told():
            dist.all_gather(parts, own, group=self._group)
        return parts

    def _all_reduce(self, total: torch.Tensor) -> None:
        with told():
            dist.all_reduce(total, group=self._group)


@contextmanager
def told() -> Iterator[None]:
    """Turn what a collective raises into the one thing that it means.

    Raises:
        LostProcessError: another process is gone, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        msg = f"a process that holds a part of the network is gone or does not answer: {one_line(error)}"
        raise LostProcessError(msg) from error
