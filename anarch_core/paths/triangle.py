"""Three networks of one architecture, and the plane through them in coordinates in which a CNN and its relaxations have one length."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import nn

from anarch_core.errors import ProbeError
from anarch_core.paths.ends import Ends, ends
from anarch_core.relaxation.entries import entry_counts

BLOCK = 2**16
"""Numbers of each network that lengths are summed over at once, in float64."""

ROUNDING = 64
"""Units of rounding of a network's length within which a point is taken to be on a line."""

Shares = tuple[float, float, float]
"""How much of each of three networks is in a point of their plane; they add up to 1."""


class NoPlaneError(ProbeError):
    """There is no one plane through three networks: they lie on a line, or coincide, or their weights are not finite."""


@attrs.frozen(kw_only=True)
class Triangle:
    """Three networks with the same tensors, by name, shape, dtype and device, and where they are in their plane.

    Lengths and angles are those in the coordinates ``n^(1/2) w``, ``n`` being the entries of the matrix from inputs to outputs that a
    weight stands for. The first network is the origin, the second lies on the x axis, and the third has y > 0: Gram-Schmidt on their
    differences.

    Attributes:
        networks: as they were given, where they need not be lifted or converted.
        buffers: floating-point buffers that differ between any two of them, of all; statistics of batch norm are not among them.
        counts: n by parameter; absent where it is 1.
        names: of the parameters that are floating-point numbers.
        base: x of the second network.
        foot: x of the third.
        height: y of the third.
    """

    networks: tuple[nn.Module, nn.Module, nn.Module]
    buffers: Mapping[str, tuple[torch.Tensor, ...]]
    counts: Mapping[str, torch.Tensor]
    names: Sequence[str]
    base: float
    foot: float
    height: float

    @classmethod
    def of(cls, first: nn.Module, second: nn.Module, third: nn.Module, example_input: torch.Tensor) -> Triangle:
        """Lift three networks to a common architecture, and see where they are.

        Args:
            first: a network; never changed.
            second: another.
            third: another.
            example_input: with a batch dimension, of the networks' dtype or another.

        Raises:
            NoPlaneError: they are on a line, to rounding, or not finite.
            ProbeError: they have no common architecture, differ in what cannot be mixed, or have no common coordinates.
        """
        networks = [first, second, third]
        for other in (1, 2, 1):  # where the third takes the first further, the second follows
            pair = ends(networks[0], networks[other])
            networks[0], networks[other] = pair.first, pair.second
        one, two, three = networks
        parameters = dict(one.named_parameters())
        example = example_input.to(dtype=next(each.dtype for each in parameters.values() if each.is_floating_point()))
        counts = entry_counts(one, example)
        names = [name for name, parameter in parameters.items() if parameter.is_floating_point()]
        weights = [_weights(network, names) for network in networks]
        scale = [counts.get(name) for name in names]
        found = inner_products(weights, scale, [[1, 0, 0], [-1, 1, 0], [-1, 0, 1]])
        if not bool(torch.isfinite(found).all()):
            msg = "weights of the networks are not finite, so there is no plane through them; take networks that have not diverged"
            raise NoPlaneError(msg)
        tolerance = ROUNDING * max(torch.finfo(each.dtype).eps for each in weights[0]) * found[0, 0].sqrt()
        base = found[1, 1].sqrt()
        _require_apart(base, tolerance, "the first two networks coincide")
        along = float(found[1, 2] / found[1, 1])
        height = inner_products(weights, scale, [[along - 1, -along, 1]])[0, 0].sqrt()
        _require_apart(height, tolerance, "the three networks are on one line")
        return cls(
            networks=(one, two, three),
            buffers=_joint_buffers(networks),
            counts=counts,
            names=names,
            base=float(base),
            foot=float(found[1, 2] / base),
            height=float(height),
        )

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """(x, y) of the three networks."""
        return (0.0, 0.0), (self.base, 0.0), (self.foot, self.height)

    def shares(self, x: float, y: float) -> Shares:
        """How much of each network is in a point of the plane."""
        third = y / self.height
        second = (x - third * self.foot) / self.base
        return 1 - second - third, second, third

    def mixed(self, shares: Shares) -> dict[str, torch.Tensor]:
        """The buffers at a point of the plane; to the bit those of a network where only it has a share, and wherever the three agree."""
        found = {}
        for name, tensors in self.buffers.items():
            out = torch.empty_like(tensors[0])
            mix([tensors], shares, [out])
            found[name] = torch.where((tensors[0] == tensors[1]) & (tensors[0] == tensors[2]), tensors[0], out)
        return found

    def weights(self) -> Sequence[tuple[torch.Tensor, ...]]:
        """The weights of all three networks, one tuple for each parameter, no copies."""
        return list(zip(*(_weights(network, self.names) for network in self.networks), strict=True))

    def lifted(self, network: nn.Module) -> nn.Module:
        """A network in this architecture.

        Raises:
            ProbeError: it is of another one, or of a less constrained one.
        """
        pair: Ends = ends(self.networks[0], network)
        if pair.first is not self.networks[0]:
            msg = (
                "a network on the way is less constrained than the three that the plane goes through, or of a wider dtype, so it has no "
                "place beside them; take a plane through a network of its kind"
            )
            raise ProbeError(msg)
        return pair.second

    def place(self, network: nn.Module, previous: nn.Module) -> tuple[float, float, float, float]:
        """Where a network is, seen from the plane.

        Args:
            network: of this architecture (:meth:`lifted`).
            previous: likewise, another one.

        Returns:
            x and y of its orthogonal projection, its distance from the plane, and its distance from the previous network.
        """
        weights = [_weights(each, self.names) for each in (*self.networks, network, previous)]
        scale = [self.counts.get(name) for name in self.names]
        found = inner_products(weights, scale, [[-1, 1, 0, 0, 0], [-1, 0, 1, 0, 0], [-1, 0, 0, 1, 0], [0, 0, 0, 1, -1]])
        x = float(found[0, 2]) / self.base
        y = (float(found[1, 2]) - self.foot * x) / self.height
        one, two, three = self.shares(x, y)
        distance = inner_products(weights, scale, [[-one, -two, -three, 1, 0]])[0, 0].sqrt()
        return x, y, float(distance), float(found[3, 3].sqrt())


@torch.no_grad()
def mix(tensors: Sequence[tuple[torch.Tensor, ...]], shares: Shares, out: Sequence[torch.Tensor]) -> None:
    """Write a point of the plane through three networks; nothing else of this size is made.

    Two are mixed first, then the one whose share is farthest from 1: no number is divided by less than 2/3, and the straight line between
    two of them is that of :func:`~anarch_core.paths.curves.straight`. Where only one has a share, it is that one to the bit.

    Args:
        tensors: of the three, one tuple for each parameter.
        shares: of the three.
        out: written to, one for each parameter.
    """
    if shares in ((1, 0, 0), (0, 1, 0), (0, 0, 1)):
        for point, three in zip(out, tensors, strict=True):
            point.copy_(three[shares.index(1)])
        return
    last = max((2, 1, 0), key=lambda index: abs(1 - shares[index]))
    a, b = (index for index in range(3) if index != last)
    along = shares[b] / (1 - shares[last])
    for point, three in zip(out, tensors, strict=True):
        torch.lerp(three[a], three[b], along, out=point)
        if shares[last]:
            torch.lerp(point, three[last], shares[last], out=point)


@torch.no_grad()
def inner_products(
    networks: Sequence[Sequence[torch.Tensor]], counts: Sequence[torch.Tensor | None], combinations: Sequence[Sequence[float]]
) -> torch.Tensor:
    """Inner products of linear combinations of networks, summed in float64 a block at a time.

    Args:
        networks: the weights of each, by parameter.
        counts: how often each weight counts, by parameter; once where None.
        combinations: numbers by which the networks are multiplied, a row for each combination.

    Returns:
        float64, [combinations, combinations].
    """
    factors = torch.tensor(combinations, dtype=torch.float64, device=networks[0][0].device)
    total = factors.new_zeros(len(factors), len(factors))
    for *parameters, count in zip(*networks, counts, strict=True):
        flat = [parameter.reshape(-1) for parameter in parameters]
        for start in range(0, flat[0].numel(), BLOCK):
            piece = slice(start, start + BLOCK)
            block = factors @ torch.stack([each[piece].double() for each in flat])
            counted = block if count is None else block * count.reshape(-1)[piece]
            total = total + counted @ block.T
    return total


def _weights(network: nn.Module, names: Sequence[str]) -> list[torch.Tensor]:
    parameters = dict(network.named_parameters())
    return [parameters[name].detach() for name in names]


def _joint_buffers(networks: Sequence[nn.Module]) -> dict[str, tuple[torch.Tensor, ...]]:
    """Of all three, the buffers in which any two differ."""
    names = {name for a, b in itertools.pairwise(networks) for name in ends(a, b).buffers}
    held = [dict(network.named_buffers()) for network in networks]
    return {name: tuple(each[name].to(held[0][name].dtype) for each in held) for name in sorted(names)}


def _require_apart(length: torch.Tensor, tolerance: torch.Tensor, what: str) -> None:
    if not bool(length > tolerance):
        msg = f"{what} (to rounding), so there is no one plane through them; take other networks, or the plane of random directions"
        raise NoPlaneError(msg)
