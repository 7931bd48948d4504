"""Which numbers of a tensor a process holds: a stretch of its output channels, wherever the layout puts them."""

from __future__ import annotations

import math

import attrs
import torch


@attrs.frozen(kw_only=True)
class Cut:
    """A process's stretch of the channels of a tensor that none holds as a whole.

    In memory the whole is [before, channels, after] and the part [before, own channels, after], both contiguous, so the numbers of a part
    stand in the order that they have in the whole.

    Attributes:
        shape: of the whole.
        before: numbers of the axes before the channels.
        channels: of the whole.
        after: numbers of one channel that lie together.
        own: the channels of the part.
    """

    shape: tuple[int, ...]
    before: int
    channels: int
    after: int
    own: range

    @classmethod
    def of(cls, part: torch.Tensor, stride: int, shape: tuple[int, ...], channels: int, own: range) -> Cut:
        """Of a part whose channels follow each other at a stride.

        Args:
            part: contiguous.
            stride: of its channels, in numbers.
            shape: of the whole.
            channels: of the whole.
            own: the channels of the part.
        """
        before = part.numel() // (len(own) * stride)
        return cls(shape=tuple(shape), before=before, channels=channels, after=stride, own=own)

    @property
    def numbers(self) -> int:
        """Of the whole."""
        return math.prod(self.shape)

    def of_whole(self, whole: torch.Tensor) -> torch.Tensor:
        """This process's numbers of a whole tensor, flat."""
        own = whole.reshape(self.before, self.channels, self.after)[:, self.own.start : self.own.stop]
        return own.reshape(-1)

    def among(self, piece: torch.Tensor, first: int) -> torch.Tensor:
        """This process's numbers of a stretch of the flat whole, in their order.

        Args:
            piece: the stretch, [n].
            first: where it begins in the flat whole.
        """
        if self.before == 1:
            low, high = (min(max(channel * self.after - first, 0), len(piece)) for channel in (self.own.start, self.own.stop))
            return piece[low:high]
        place = torch.arange(first, first + len(piece), device=piece.device)
        channel = place.div_(self.after, rounding_mode="floor").remainder_(self.channels)
        return piece[(channel >= self.own.start) & (channel < self.own.stop)]
