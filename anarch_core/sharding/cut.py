"""Which numbers of a tensor a process holds: a stretch of its output channels, wherever the layout puts them."""

from __future__ import annotations

import math
from itertools import accumulate
from operator import mul

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

    @property
    def part_shape(self) -> tuple[int, ...]:
        """Of the part: that of the whole, with less of the axis that the channels are on."""
        axis = next(axis for axis, size in enumerate(accumulate(self.shape, mul)) if size > self.before)
        own = self.shape[axis] * len(self.own) // self.channels
        return (*self.shape[:axis], own, *self.shape[axis + 1 :])

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
        views = self.within(piece, first)
        return views[0].reshape(-1) if len(views) == 1 else torch.cat([piece[:0], *(view.reshape(-1) for view in views)])

    def within(self, piece: torch.Tensor, first: int) -> list[torch.Tensor]:
        """Views of this process's numbers of a stretch of the flat whole, in their order; see :meth:`among`."""
        slab = self.channels * self.after
        low, high = self.own.start * self.after, self.own.stop * self.after
        begun = min(-first % slab, len(piece))  # numbers of a slab that began before
        slabs = (len(piece) - begun) // slab
        middle, place = piece[begun : begun + slabs * slab], first % slab
        views = [
            piece[:begun][max(low - place, 0) : max(high - place, 0)],
            middle.view(slabs, slab)[:, low:high],
            piece[begun + len(middle) :][low:high],
        ]
        return [view for view in views if view.numel()]

    def held_before(self, place: int) -> int:
        """How many of this process's numbers stand before a place in the flat whole, which is where they go on in the flat part."""
        slabs, rest = divmod(place, self.channels * self.after)
        length = len(self.own) * self.after
        return slabs * length + min(max(rest - self.own.start * self.after, 0), length)

    def in_bytes(self, size: int) -> Cut:
        """The same cut, a number being a byte.

        Args:
            size: bytes of a number.
        """
        return attrs.evolve(self, shape=(*self.shape, size), after=self.after * size)
