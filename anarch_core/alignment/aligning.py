"""Permuting the channels of a network so that it is near another one, computing what it did."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import attrs
import numpy as np
import torch
from torch import nn

from anarch_core.alignment.matching import Matching, distance2, norm2
from anarch_core.alignment.permutable import Symmetries, symmetries
from anarch_core.alignment.slots import Group, move
from anarch_core.display import Displayed, Overview, Table
from anarch_core.errors import ProbeError
from anarch_core.network import copied, undisturbed

ALIKE = 1e4
"""Outputs that differ by less, in units of rounding of the largest, are those of one function."""


@attrs.frozen(kw_only=True)
class LayerDistance:
    """How far the parameters of one module are from those of the other network's.

    Attributes:
        before: Euclidean distance as the networks were.
        after: when the channels are permuted.
        norm: of the other network's parameters.
    """

    before: float
    after: float
    norm: float


@attrs.frozen(kw_only=True, repr=False, eq=False)
class Alignment(Displayed):
    """A network that was permuted to be near another one.

    Attributes:
        network: the permuted copy; it computes what the network does.
        permutations: for each group of channels, which of them stands at each place now, [channels].
        layers: distances by module.
        sweeps: through all groups, until nothing changed, for each start.
        pinned: module -> why channels that meet there stay where they are, as the end of a sentence.
    """

    network: nn.Module
    permutations: Mapping[str, torch.Tensor]
    layers: Mapping[str, LayerDistance]
    sweeps: Sequence[int]
    pinned: Mapping[str, str]

    @property
    def before(self) -> float:
        """Euclidean distance of all parameters as the networks were."""
        return math.hypot(*(layer.before for layer in self.layers.values()))

    @property
    def after(self) -> float:
        """Euclidean distance of all parameters when the channels are permuted."""
        return math.hypot(*(layer.after for layer in self.layers.values()))

    @property
    def moved(self) -> int:
        """Channels that stand at another place than they did."""
        return sum(int((order != torch.arange(len(order))).sum()) for order in self.permutations.values())

    @property
    def channels(self) -> int:
        """Channels that could be permuted."""
        return sum(len(order) for order in self.permutations.values())

    def overview(self) -> Overview:
        """Distances by module; shown by ``print`` and by notebooks."""
        rows = [
            [path or "(root)", *(f"{value:.4g}" for value in (each.before, each.after, each.norm))] for path, each in self.layers.items()
        ]
        rows.append(["all", f"{self.before:.4g}", f"{self.after:.4g}", f"{math.hypot(*(each.norm for each in self.layers.values())):.4g}"])
        return Overview(
            title="Alignment",
            tables=[Table(headings=["layer", "distance", "aligned", "norm"], rows=rows)],
            notes=self.remarks(),
        )

    def remarks(self) -> list[str]:
        """How many channels moved, and which cannot, as sentences."""
        return [
            f"{self.moved} of {self.channels} channels moved, in {len(self.permutations)} groups",
            *(f"not permuted at {path or 'the network'}: {why}" for path, why in self.pinned.items()),
        ]


@torch.no_grad()
def align(model: nn.Module, to: nn.Module, example_input: torch.Tensor, *, seed: int = 0, restarts: int = 1) -> Alignment:
    """Permute the channels of a network so that its weights are near those of another one.

    Weight matching (Ainsworth, Hayase, Srinivasa 2022, algorithm 1): the inner product of the parameters is made as large as can be, for
    one group of channels after the other, each exactly (a linear assignment), until none gains. That finds a local optimum, the best from
    these starts: as the network is; with each group matched from the input on, which finds a permuted copy exactly; and as it is again, in
    other random orders. Where a tensor has one group on two axes its assignment is linearised, and taken if the inner product grows.

    Channels of relaxed layers are permuted as wholes, at all positions together, as those of the convolutions that they were: so a permuted
    relaxation is the relaxation of the permuted network. The single units of a fully connected layer would have more symmetries.

    Args:
        model: to be permuted; never changed.
        to: of the same architecture; never changed.
        example_input: [n, ...], inputs on which the channels are followed, and on which what is permuted is seen to compute the same.
        seed: of the random orders.
        restarts: further random orders.

    Returns:
        the permuted copy and what it took. Equal networks stay as they are, to the bit.

    Raises:
        ProbeError: the networks are of different architectures or on several devices, no channel can be permuted, weights are not
            finite, or the permuted network computes something else.
    """
    _require_alike(model, to)
    found = symmetries(model, example_input)
    if not found.groups:
        because = f" ({found.why()})" if found.pinned else ""
        msg = f"the network has no channels that can be permuted{because}; compare it as it is"
        raise ProbeError(msg)
    network = copied(model)
    theirs = _tensors(to)
    parameters = frozenset(name for name, _ in model.named_parameters())
    matching = Matching(groups=found.groups, mine=_tensors(network), theirs=theirs, parameters=parameters)
    best, sweeps = _best(matching, seed, restarts)
    matching.go(best)
    _require_same_function(model, network, example_input, found, best)
    return Alignment(
        network=network,
        permutations={group.name: order for group, order in zip(found.groups, best, strict=True)},
        layers=_distances(_tensors(model), matching.mine, theirs, found, parameters),
        sweeps=sweeps,
        pinned=found.pinned,
    )


def _best(matching: Matching, seed: int, restarts: int) -> tuple[list[torch.Tensor], list[int]]:
    rng = np.random.default_rng(seed)
    identity = list(matching.orders)
    best, highest, sweeps = identity, matching.inner_product(), []
    least = 1e-9 * max(abs(highest), 1e-300)
    for start in range(2 + restarts):
        matching.go(identity)
        if start == 1:
            matching.forward()
        sweeps.append(matching.descend(rng))
        score = matching.inner_product()
        if score > highest + least:
            best, highest = list(matching.orders), score
    return best, sweeps


def _tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach() for name, tensor in (*network.named_parameters(), *network.named_buffers())}


def _require_alike(model: nn.Module, to: nn.Module) -> None:
    here, there = _tensors(model), _tensors(to)
    differing = sorted(here.keys() ^ there.keys()) or [name for name in here if here[name].shape != there[name].shape]
    if differing:
        which = ", ".join(differing[:5])
        msg = f"the networks are not of one architecture, they differ in {which}; align networks that differ in their weights"
        raise ProbeError(msg)
    devices = sorted({str(tensor.device) for tensor in (*here.values(), *there.values())})
    if len(devices) > 1:
        msg = f"the networks are on several devices, {', '.join(devices)}; move both to one with .to(device)"
        raise ProbeError(msg)


def _require_same_function(
    model: nn.Module, network: nn.Module, example_input: torch.Tensor, found: Symmetries, orders: Sequence[torch.Tensor]
) -> None:
    """See that the permuted network computes what it did, and name the channels by which it does not.

    Raises:
        ProbeError: it does not.
    """
    expected = _outputs(model, example_input)
    if _same(expected, _outputs(network, example_input)):
        return
    tensors = _tensors(network)
    for group, order in zip(reversed(found.groups), reversed(orders), strict=True):
        before = _outputs(network, example_input)
        move(group, torch.argsort(order), tensors)
        if not _same(before, _outputs(network, example_input)):
            raise ProbeError(_other(group))
    raise ProbeError(_other(found.groups[0]))


def _other(group: Group) -> str:
    where = ", ".join(dict.fromkeys(name for use in group.uses for name in use.slot.names))
    return (
        f"the network computes something else when the channels of {group.name} are permuted (in {where}), so that they are used in a way "
        "that is not understood; align networks without it"
    )


def _outputs(network: nn.Module, example_input: torch.Tensor) -> torch.Tensor:
    with undisturbed(network), torch.no_grad():
        outputs: torch.Tensor = network(example_input)
        return outputs


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    largest = float(a.nan_to_num(0, 0, 0).abs().max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0, atol=min(ALIKE * torch.finfo(a.dtype).eps, 0.05) * largest, equal_nan=True)


def _distances(
    before: Mapping[str, torch.Tensor],
    after: Mapping[str, torch.Tensor],
    theirs: Mapping[str, torch.Tensor],
    found: Symmetries,
    parameters: frozenset[str],
) -> dict[str, LayerDistance]:
    """By module; of masked weights, those that the network computes with."""
    masked = dict.fromkeys(names for group in found.groups for use in group.uses if len(names := use.slot.names) > 1)
    inside = {name for names in masked for name in names}
    squares: dict[str, list[tuple[float, float, float]]] = {}
    for names in (*((name,) for name in theirs if name in parameters - inside), *masked):
        if all(theirs[name].is_floating_point() for name in names):
            here = distance2(before, theirs, names), distance2(after, theirs, names), norm2(theirs, names)
            squares.setdefault(names[0].rpartition(".")[0], []).append(here)
    totals = {path: [math.sqrt(sum(column)) for column in zip(*squares[path], strict=True)] for path in squares}
    paths = [path for path in dict.fromkeys(name.rpartition(".")[0] for name in theirs) if path in totals]
    return {path: LayerDistance(before=totals[path][0], after=totals[path][1], norm=totals[path][2]) for path in paths}
