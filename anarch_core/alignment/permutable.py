"""The permutation symmetries of a network: which axes of which tensors are permuted together, found by following its channels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import torch
from torch import nn

from anarch_core.alignment.channels import FIXED
from anarch_core.alignment.constraints import require_kept_constraints
from anarch_core.alignment.following import Followed, Following, watched
from anarch_core.alignment.operations import understand
from anarch_core.alignment.relaxed import understand_layer
from anarch_core.alignment.slots import Group, Slot, Use
from anarch_core.errors import ProbeError, one_line
from anarch_core.network import undisturbed


@attrs.frozen(kw_only=True, eq=False)
class Symmetries:
    """Permutations of channels that leave what a network computes as it is.

    Attributes:
        groups: sets of channels that can be permuted, each by itself, in the order in which the network makes them.
        pinned: module -> why channels that meet there stay where they are, as the end of a sentence.
    """

    groups: Sequence[Group]
    pinned: Mapping[str, str]

    def why(self) -> str:
        """What is not understood, for messages; empty where everything is."""
        return "; ".join(f"{path or 'the network'}: {why}" for path, why in list(self.pinned.items())[:3])


def symmetries(model: nn.Module, example_input: torch.Tensor) -> Symmetries:
    """Find which channels of a network can be permuted.

    The network is run on the example in evaluation mode and every function that it calls is looked at: convolutions, dense layers and the
    lattice's relaxed layers make channels and read them, flattening puts positions of one channel beside each other, additions make the
    channels of two tensors one. What is not understood keeps the channels that it is given where they are.

    Args:
        model: never changed.
        example_input: [n, ...], some inputs.

    Raises:
        ProbeError: the network does not run on the example, or computes by something other than functions of torch.
    """
    followed = Followed.of(model)
    mode = Following(followed, understand)
    followed.put(example_input, torch.full(example_input.shape, FIXED))
    with undisturbed(model), watched(model, mode, understand_layer), torch.no_grad():
        try:
            with mode:
                outputs = model(example_input)
        except ProbeError:
            raise
        except Exception as error:  # whatever a network may raise
            shape = list(example_input.shape)
            msg = f"the network does not run on inputs of shape {shape}, so its channels cannot be followed: {one_line(error)}"
            raise ProbeError(msg) from error
        mode.away = 1
        followed.close(outputs)
    groups = _groups(followed)
    if require_kept_constraints(model, followed, groups):
        groups = _groups(followed)
    return Symmetries(groups=groups, pinned=dict(followed.pinned))


def _groups(followed: Followed) -> list[Group]:
    """Channels that lie in the same slots, as often, form a group: a permutation of these maps every slot to itself."""
    slots = [(slot, followed.channels.roots(slot.channels).numpy()) for slot in followed.slots.values()]
    seen: dict[int, list[tuple[int, int]]] = {}
    for number, (_, channels) in enumerate(slots):
        for channel, count in Counter(channels.tolist()).items():
            if channel > FIXED:
                seen.setdefault(channel, []).append((number, count))
    members: dict[tuple[tuple[int, int], ...], list[int]] = {}
    for channel, places in seen.items():
        members.setdefault(tuple(places), []).append(channel)
    groups: list[Group] = []
    for where, group in members.items():
        uses = tuple(Use(slot=slots[number][0], positions=_positions(slots[number][1], group)) for number, _ in where)
        if len(group) > 1 and any(use.slot.names for use in uses):
            groups.append(Group(name=_named(uses, groups), size=len(group), uses=uses))
    return groups


def _positions(channels: np.ndarray, group: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.flatnonzero(channels == channel) for channel in group]))


def _named(uses: Sequence[Use], others: Sequence[Group]) -> str:
    """The module of the first tensor that has them; what they are of it, where it has several groups."""
    slot: Slot = next(use.slot for use in uses if use.slot.names)
    name = slot.names[0].rpartition(".")[0] or slot.names[0]
    taken = sum(group.name.partition("#")[0] == name for group in others)
    return f"{name}#{taken + 1}" if taken else name
