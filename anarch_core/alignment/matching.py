"""Weight matching (Ainsworth, Hayase, Srinivasa 2022, algorithm 1): permutations that bring weights near those of another network."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence

import attrs
import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from anarch_core.alignment.slots import AT_ONCE, Group, Use, move, parts
from anarch_core.errors import ProbeError

ROUNDING = 1e3
"""Gains below so many units of rounding are none."""

Tensors = Mapping[str, torch.Tensor]


@attrs.define(kw_only=True, eq=False)
class Matching:
    """A network that is being permuted, and the one that it is to be near.

    Attributes:
        groups: what can be permuted.
        mine: tensors of the network, by name; changed in place.
        theirs: of the other one.
        parameters: names of the tensors that count; others (statistics) are permuted alone.
        orders: for each group, which channel stands at each place now.
    """

    groups: Sequence[Group]
    mine: dict[str, torch.Tensor]
    theirs: Tensors
    parameters: frozenset[str]
    orders: list[torch.Tensor] = attrs.field(init=False)
    _known: dict[Use, tuple[list[torch.Tensor], torch.Tensor, np.ndarray]] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.orders = [torch.arange(group.size) for group in self.groups]

    def go(self, orders: Sequence[torch.Tensor]) -> None:
        """Permute the network so that these channels stand at each place, by group."""
        for number, order in enumerate(orders):
            self._move(number, torch.argsort(self.orders[number])[order])

    def descend(self, rng: np.random.Generator) -> int:
        """Match group after group, in random order, until a sweep changes nothing; the number of sweeps."""
        sweeps, changed = 0, True
        while changed:
            changed = False
            for number in rng.permutation(len(self.groups)):
                changed |= self._improve(int(number), self._counted(int(number)))
            sweeps += 1
        return sweeps

    def forward(self) -> None:
        """Match each group by what is known when it is made: tensors whose other channels stay where they are, or are matched already.

        A network that is a permuted copy is found by this: its first layer reads what is not permuted, the second one what the first made.
        """
        left = dict.fromkeys(range(len(self.groups)))
        while left:
            told = {number: self._told(number, left) for number in left}
            number = next((number for number, uses in told.items() if uses), next(iter(left)))
            self._improve(number, told[number] or self._counted(number))
            del left[number]

    def inner_product(self) -> float:
        """Of the weights of both networks that channels lie in."""
        slots = {use.slot.names: use.slot for group in self.groups for use in group.uses if self.parameters & set(use.slot.names)}
        return sum(inner(self.mine, self.theirs, names) for names in slots)

    def _counted(self, number: int) -> list[Use]:
        return [use for use in self.groups[number].uses if self.parameters & set(use.slot.names)]

    def _told(self, number: int, left: Mapping[int, None]) -> list[Use]:
        """Uses in tensors where nothing else is to be matched yet, and which are not biases alone."""
        own = [use.slot.names for use in self.groups[number].uses]
        others = {use.slot.names for other in left if other != number for use in self.groups[other].uses}
        uses = [use for use in self._counted(number) if use.slot.names not in others and own.count(use.slot.names) == 1]
        return uses if any(use.slot.of(self.mine)[0].ndim > 1 for use in uses) else []

    def _improve(self, number: int, uses: Sequence[Use]) -> bool:
        """Match one group by some of its uses; whether anything moved."""
        group = self.groups[number]
        score = sum(self._products(number, use) for use in uses)
        if not isinstance(score, np.ndarray):
            return False
        if not np.isfinite(score).all():
            msg = f"the weights that make or read the channels of {group.name} are not finite, so they cannot be matched"
            raise ProbeError(msg)
        order = linear_sum_assignment(score, maximize=True)[1]
        gain = score[np.arange(group.size), order].sum() - np.trace(score)
        dtype = uses[0].slot.of(self.mine)[0].dtype
        least = ROUNDING * torch.finfo(dtype).eps * np.abs(score).max(axis=1).sum()
        if gain <= least:
            return False
        before = None if group.linear else self.inner_product()
        self._move(number, torch.from_numpy(order))
        if before is not None and self.inner_product() <= before + least:
            self._move(number, torch.argsort(torch.from_numpy(order)))
            return False
        return True

    def _move(self, number: int, order: torch.Tensor) -> None:
        if not torch.equal(order, torch.arange(len(order))):
            move(self.groups[number], order, self.mine)
            self.orders[number] = self.orders[number][order]

    def _products(self, number: int, use: Use) -> np.ndarray:
        """Inner products of the weights of each channel there (rows) with those of each channel here, float64.

        As long as nothing else in the tensor moves they are those that were found before, in another order.
        """
        others = [(place, other) for place, group in enumerate(self.groups) for other in group.uses if other is not use]
        beside = sorted({place for place, other in others if other.slot.names == use.slot.names})
        now, own = [self.orders[place] for place in beside], self.orders[number]
        before, order, score = self._known.get(use, ([], own, None))
        if score is None or not all(map(torch.equal, before, now)):
            order, score = own, self._all_products(use)
            self._known[use] = now, order, score
        return score[:, torch.argsort(order)[own].numpy()]

    def _all_products(self, use: Use) -> np.ndarray:
        score = np.zeros((len(use.positions),) * 2)
        for there, here in _pieces(use, self.theirs, self.mine):
            score += (there.to(here.dtype) @ here.T).double().cpu().numpy()
        return score


@torch.no_grad()
def _pieces(use: Use, *networks: Tensors) -> Iterator[list[torch.Tensor]]:
    """The weights of each channel as rows, [channels, some], of every network; a part of them at a time."""
    slot, positions = use.slot, use.positions
    whole = torch.equal(positions.flatten(), torch.arange(len(slot.channels)))
    for pieces in zip(*(parts(view, slot.axis) for tensors in networks for view in slot.of(tensors)), strict=True):
        rows = []
        for first in range(0, len(pieces), len(slot.names)):
            product = functools.reduce(operator.mul, pieces[first : first + len(slot.names)])
            chosen = product if whole else product.index_select(slot.axis, positions.flatten().to(product.device))
            rows.append(chosen.movedim(slot.axis, 0).reshape(len(positions), -1))
        yield rows


@torch.no_grad()
def inner(a: Tensors, b: Tensors, names: Sequence[str]) -> float:
    """Inner product of a tensor of one network and its namesake, or of products of tensors, in float64."""
    return sum(float(x.double() @ y.double()) for x, y in zip(_flat(a, names), _flat(b, names), strict=True))


@torch.no_grad()
def norm2(tensors: Tensors, names: Sequence[str]) -> float:
    """Squared norm of a tensor, or of a product of tensors, in float64."""
    return sum(float(x.double().square().sum()) for x in _flat(tensors, names))


@torch.no_grad()
def distance2(a: Tensors, b: Tensors, names: Sequence[str]) -> float:
    """Squared distance of a tensor of one network and its namesake, or of products of tensors, in float64."""
    return sum(float((x.double() - y.double()).square().sum()) for x, y in zip(_flat(a, names), _flat(b, names), strict=True))


def _flat(tensors: Tensors, names: Sequence[str]) -> Iterator[torch.Tensor]:
    for pieces in zip(*(torch.split(tensors[name].detach().reshape(-1), AT_ONCE) for name in names), strict=True):
        yield functools.reduce(operator.mul, pieces)
