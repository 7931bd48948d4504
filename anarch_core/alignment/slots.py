"""Where the channels of a network lie in its parameters and buffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs
import torch

AT_ONCE = 1 << 16
"""Numbers of a tensor that are copied at a time."""

View = Callable[[torch.Tensor], torch.Tensor]


def as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    """The view of a tensor whose axes hold channels as they are."""
    return tensor


@attrs.frozen(kw_only=True)
class Slot:
    """An axis of some tensors along which channels lie.

    Attributes:
        names: of the tensors, which are permuted together: a parameter or buffer, or a weight and its mask, whose product is used; none for
            a slot that only tells channels apart, as the groups of a normalisation do.
        key: tells slots apart.
        view: of such a tensor, without a copy.
        axis: of the view.
        channels: along it, [size]; 0 for those that stay where they are.
    """

    names: tuple[str, ...]
    key: tuple[object, ...]
    view: View
    axis: int
    channels: torch.Tensor

    def of(self, tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """The views of the tensors."""
        return [self.view(tensors[name]) for name in self.names]


@attrs.frozen(kw_only=True, eq=False)
class Use:
    """Where the channels of one group lie along an axis.

    Attributes:
        slot: the axis.
        positions: of every channel of the group, [channels, times that each of them is there].
    """

    slot: Slot
    positions: torch.Tensor


@attrs.frozen(kw_only=True, eq=False)
class Group:
    """Channels that may change places with one another, if they do so wherever they are.

    Attributes:
        name: of the module, or part of it, that makes them.
        size: number of channels.
        uses: where they are.
    """

    name: str
    size: int
    uses: tuple[Use, ...]

    @property
    def linear(self) -> bool:
        """Whether no tensor has the channels on two axes, so that the inner product is linear in the permutation."""
        names = [use.slot.names for use in self.uses if use.slot.names]
        return len(set(names)) == len(names)


@torch.no_grad()
def move(group: Group, order: torch.Tensor, tensors: dict[str, torch.Tensor]) -> None:
    """Put channel ``order[i]`` of a group in the place of channel ``i``, in every tensor that is given.

    Args:
        group: the channels.
        order: a permutation of them, [channels].
        tensors: by name; changed in place.
    """
    for use in group.uses:
        if use.slot.names and set(use.slot.names) <= tensors.keys():
            for view in use.slot.of(tensors):
                _move(view, use, order.tolist())


def _move(view: torch.Tensor, use: Use, order: list[int]) -> None:
    """Along the cycles of the permutation: one channel is copied at a time, so rows of a large matrix move as fast as memory is."""
    axis, count = use.slot.axis, use.positions.shape[1]
    if count > 1 and not torch.equal(use.positions, use.positions[:, :1] + torch.arange(count)):  # each channel's places lie apart
        places = use.positions.to(view.device)
        for part in parts(view, axis):
            part.index_copy_(axis, places.flatten(), part.index_select(axis, places[order].flatten()))
        return
    channels = [view.narrow(axis, start, count) for start in use.positions[:, 0].tolist()]
    left = {place for place, source in enumerate(order) if place != source}
    while left:
        first = place = min(left)
        held = channels[first].clone()
        while order[place] != first:
            channels[place].copy_(channels[order[place]])
            left.remove(place)
            place = order[place]
        channels[place].copy_(held)
        left.remove(place)


def parts(view: torch.Tensor, axis: int) -> Iterator[torch.Tensor]:
    """Views that together are all of a tensor, each with all places along an axis, and of few numbers where that can be."""
    along = next((other for other in range(view.ndim) if other != axis and view.shape[other] > 1), None)
    if along is None:
        yield view
        return
    count = min(view.shape[along], -(-view.numel() // AT_ONCE))
    yield from torch.tensor_split(view, count, dim=along)
