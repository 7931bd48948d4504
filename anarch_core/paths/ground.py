"""What paths lie on: the weights between two networks, and the data that the loss is of."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Collection, Sequence

import attrs
import torch
from torch import nn

from anarch_core.data.tensor_data import TensorData
from anarch_core.models import input_dtype, warn_of_batch_dependence
from anarch_core.network import undisturbed
from anarch_core.paths.chosen_layers import Rest
from anarch_core.paths.curves import arc_length, fractions
from anarch_core.paths.ends import Ends, ends, require_place
from anarch_core.paths.landscape import Landscape
from anarch_core.paths.profile import Method, Profile
from anarch_core.training.evaluation import Score, evaluate

Path = Callable[[float, Sequence[torch.Tensor]], None]
"""Writes the point at a place from 0 to 1 into tensors that are shaped as the weights are."""

COMPARED = 64
"""Samples on which the networks are seen to be of one architecture."""


@attrs.frozen(kw_only=True)
class Ground:
    """Two networks of one architecture, and the loss between them.

    Attributes:
        ends: the networks.
        landscape: the loss by the weights that move.
        data: that it is measured on.
        home: the network that everything which does not move is of, ``"first"`` or ``"second"``; None where everything moves.
    """

    ends: Ends
    landscape: Landscape
    data: TensorData
    home: Rest | None = None

    @classmethod
    def between(cls, a: nn.Module, b: nn.Module, data: TensorData) -> Ground:
        """Lift two networks to a common architecture.

        Raises:
            ProbeError: they have none, or differ in what cannot be mixed.
        """
        pair = ends(a, b)
        data = data.to(dtype=input_dtype(pair.first, data.x_train))
        landscape = Landscape(pair.first, data.x_train, objective=data.objective, trained=pair.trained)
        landscape.require_function_of(pair.second, data.x_train[:COMPARED], data.y_train[:COMPARED])
        return cls(ends=pair, landscape=landscape, data=data)

    def confined(self, moving: Collection[str], home: Rest) -> Ground:
        """The part of it where some tensors move, by name, and all else is that of one of the networks; it takes the landscape over."""
        self.landscape.confine(self.ends.first if home == "first" else self.ends.second, moving)
        buffers = {name: pair for name, pair in self.ends.buffers.items() if name in moving}
        return attrs.evolve(self, ends=attrs.evolve(self.ends, buffers=buffers), home=home)

    @property
    def weights(self) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
        """Those that move, of both networks; no copies."""
        return self.landscape.weights(self.ends.first), self.landscape.weights(self.ends.second)

    def batch(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of some training samples."""
        return self.data.inputs("train")[rows], self.data.y_train[rows]

    def walk(self, path: Path, method: Method, points: int, progress: Callable[[int, int], None]) -> Profile:
        """Evaluate evenly spaced places of a path."""
        train, test, lengths = [], [], []
        behind = None if method == "linear" else [part.clone() for part in self.weights[0]]
        for index, place in enumerate(fractions(points)):
            network = self.landscape.go(functools.partial(path, place), self.ends.between(place))
            if behind is not None and index:
                lengths.append(self._step(behind))
            train.append(evaluate(network, self.data.inputs("train"), self.data.y_train, objective=self.data.objective))
            test.append(evaluate(network, self.data.inputs("test"), self.data.y_test, objective=self.data.objective))
            progress(index + 1, points)
        positions = fractions(points) if behind is None else arc_length(lengths)
        return Profile(method=method, positions=positions, train=train, test=test, statistics_shift=self._statistics_shift(train))

    @torch.no_grad()
    def _step(self, behind: Sequence[torch.Tensor]) -> float:
        """How far the network is from the point behind it, which it becomes."""
        squares = []
        for last, part in zip(behind, self.landscape.parameters, strict=True):
            squares.append(float(last.sub_(part).norm()) ** 2)
            last.copy_(part)
        return math.sqrt(sum(squares))

    def _statistics_shift(self, train: Sequence[Score]) -> float | None:
        """How far the losses of the given networks moved with batch-norm statistics that were estimated afresh."""
        if not self.landscape.normalised:
            return 0.0
        given = [
            (end, at) for name, end, at in (("first", self.ends.first, 0), ("second", self.ends.second, -1)) if self.home in (None, name)
        ]
        shifts = [abs(self.undisturbed_loss(end) - train[at].loss) for end, at in given]
        return max(shifts) if all(map(math.isfinite, shifts)) else None

    def undisturbed_loss(self, network: nn.Module) -> float:
        """Training loss of a network as it is, with the statistics that it has."""
        with undisturbed(network), torch.no_grad():
            return evaluate(network, self.data.inputs("train"), self.data.y_train, objective=self.data.objective).loss


def measured_on(data: TensorData, samples: int | None, *networks: nn.Module) -> TensorData:
    """The samples that paths between networks are measured on, checked.

    Raises:
        DataError: the data are not what their objective takes.
        ProbeError: the networks are not where the data are.
    """
    data.check()
    for network in networks:
        warn_of_batch_dependence(network)
    part = data if samples is None else data.limited(samples)
    require_place(part, *networks)
    return part
