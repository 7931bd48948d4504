"""Loss and scores on the plane through three networks, with the way of a training projected onto it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from torch import nn

from anarch_core.data.tensor_data import TensorData
from anarch_core.display import Displayed, Overview, Table
from anarch_core.errors import ProbeError
from anarch_core.models import input_dtype, warn_of_batch_dependence
from anarch_core.network import undisturbed
from anarch_core.paths.curves import fractions
from anarch_core.paths.ends import require_place
from anarch_core.paths.ground import COMPARED
from anarch_core.paths.landscape import Landscape
from anarch_core.paths.profile import Profile
from anarch_core.paths.surface import Surface, limited, require_points, scores, spaced, surface
from anarch_core.paths.triangle import Shares, Triangle, mix

if TYPE_CHECKING:
    from pandas import DataFrame

EDGES = {"first_second": (0, 1), "second_third": (1, 2), "first_third": (0, 2)}
"""The straight ways between the three networks, by number."""


@attrs.frozen(kw_only=True)
class Passed:
    """A network on the way of a training, seen from a plane.

    Attributes:
        epochs: since the way began.
        x: of its orthogonal projection onto the plane.
        y: likewise.
        distance: from the plane.
        step: its distance from the network before it; 0 for the first.
    """

    epochs: float
    x: float
    y: float
    distance: float
    step: float


@attrs.frozen(kw_only=True, repr=False)
class Plane(Displayed):
    """What was met on the plane through three networks.

    Lengths are those of the matrices from inputs to outputs: the coordinates ``n^(1/2) w``, in which a CNN and what it can be relaxed to
    have one length.

    Attributes:
        corners: (x, y) of the three networks: (0, 0), (x, 0) and one with y > 0.
        surface: loss and scores on a rectangle around them.
        edges: the same on the straight ways between them: ``first_second``, ``second_third``, ``first_third``.
        trajectory: networks on the way, oldest first; empty where none were given.
        statistics_shift: how much estimating batch-norm statistics afresh changed the training loss of the three, the largest; 0 without
            batch norm, None where one of these losses is not finite.
    """

    corners: Sequence[tuple[float, float]]
    surface: Surface
    edges: Mapping[str, Profile]
    trajectory: Sequence[Passed] = ()
    statistics_shift: float | None = 0.0

    @property
    def distances(self) -> dict[str, float]:
        """Between the three networks, by edge."""
        return {name: math.dist(self.corners[a], self.corners[b]) for name, (a, b) in EDGES.items()}

    @property
    def trajectory_share(self) -> float | None:
        """What the plane shows of the way: the squared lengths of its steps in the plane, of those in weight space.

        None where there is no step.
        """
        whole = sum(passed.step**2 for passed in self.trajectory)
        pairs = zip(self.trajectory, self.trajectory[1:], strict=False)
        shown = sum(math.dist((a.x, a.y), (b.x, b.y)) ** 2 for a, b in pairs)
        return shown / whole if whole > 0 and math.isfinite(whole) else None

    def overview(self) -> Overview:
        """Where the three are, the barriers between them, and what is seen of the way; shown by ``print`` and by notebooks."""
        ends = [self.edges["first_second"].train[0], self.edges["first_second"].train[-1], self.edges["first_third"].train[-1]]
        rows = [
            [name, f"{x:.6g}", f"{y:.6g}", f"{score.loss:.4g}"]
            for name, (x, y), score in zip(("first", "second", "third"), self.corners, ends, strict=True)
        ]
        notes = [f"{name.replace('_', ' to ')}: {profile.remarks()[0]}" for name, profile in self.edges.items()]
        if self.trajectory_share is not None:
            notes.append(f"the plane shows {self.trajectory_share:.3g} of the squared length of the way's {len(self.trajectory) - 1} steps")
        return Overview(
            title="plane through three networks",
            tables=[Table(headings=["network", "x", "y", "training loss"], rows=rows)],
            notes=notes,
        )

    def to_dataframe(self) -> DataFrame:
        """A row for each point of the rectangle, see :meth:`Surface.to_dataframe`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return self.surface.to_dataframe()


def plane(
    first: nn.Module,
    second: nn.Module,
    third: nn.Module,
    data: TensorData,
    *,
    points: int = 15,
    margin: float = 0.3,
    samples: int | None = 1000,
    trajectory: Iterable[tuple[float, nn.Module]] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Plane:
    """Evaluate the plane through three networks.

    They are lifted to an architecture that holds all three, in the widest of their dtypes. Floating-point buffers are mixed as the weights
    are; batch-norm statistics are estimated afresh at every point. Beside the networks as they are lifted, one further network is held, and
    while the way is projected, two of it.

    Args:
        first: the network at (0, 0); never changed.
        second: the network at (x, 0); never changed.
        third: the network with y > 0; never changed.
        data: on the networks' device.
        points: on each side of the rectangle, and on each edge, from 2 to 1000.
        margin: of the rectangle around the three, in parts of the longer side of the one that just holds them.
        samples: training samples, and samples of the test set, class-balanced; all if None.
        trajectory: networks on the way of a training with epochs that say when, oldest first; each is looked at once.
        progress: called with (done, total) points.

    Raises:
        DataError: the data are not what their objective takes.
        NoPlaneError: the networks lie on a line.
        ProbeError: they have no common architecture or coordinates, differ in what cannot be mixed, or numbers are out of range.
    """
    require_points(points)
    if not 0 <= margin <= 100:
        msg = f"the margin around three networks is from 0 to 100 times their extent, got {margin!r}"
        raise ProbeError(msg)
    data.check()
    for network in (first, second, third):
        warn_of_batch_dependence(network)
    part = limited(data, samples)
    require_place(part, first, second, third)
    triangle = Triangle.of(first, second, third, part.inputs("train")[:1])
    seen = _projected(triangle, trajectory)
    one, *others = triangle.networks
    part = part.to(dtype=input_dtype(one, part.inputs("train")[:1]))
    landscape = Landscape(one, part.x_train, objective=part.objective)
    for network in others:
        landscape.require_function_of(network, part.inputs("train")[:COMPARED], part.y_train[:COMPARED])
    weights = triangle.weights()

    def go(shares: Shares) -> nn.Module:
        return landscape.go(lambda out: mix(weights, shares, out), triangle.mixed(shares))

    evaluated = 0

    def done() -> None:
        nonlocal evaluated
        evaluated += 1
        progress(evaluated, points * (points + len(EDGES)))

    edges = {}
    for name, (start, end) in EDGES.items():
        found = []
        for place in fractions(points):
            shares = [0.0, 0.0, 0.0]
            shares[start], shares[end] = 1 - place, place
            found.append(scores(go((shares[0], shares[1], shares[2])), part))
            done()
        train, test = zip(*found, strict=True)
        edges[name] = Profile(method="linear", positions=fractions(points), train=train, test=test)
    x, y = _sides(triangle, points, margin)
    grid = surface(lambda x, y: go(triangle.shares(x, y)), part, x, y, done)
    shift: float | None = 0.0
    if landscape.normalised:
        refreshed = [edges["first_second"].train[0], edges["first_second"].train[-1], edges["first_third"].train[-1]]
        shifts = [abs(_undisturbed_loss(each, part) - score.loss) for each, score in zip(triangle.networks, refreshed, strict=True)]
        shift = max(shifts) if all(map(math.isfinite, shifts)) else None
    return Plane(corners=triangle.corners, surface=grid, edges=edges, trajectory=seen, statistics_shift=shift)


def _projected(triangle: Triangle, trajectory: Iterable[tuple[float, nn.Module]]) -> list[Passed]:
    seen: list[Passed] = []
    previous: nn.Module | None = None
    for epochs, network in trajectory:
        lifted = triangle.lifted(network)
        x, y, distance, step = triangle.place(lifted, lifted if previous is None else previous)
        seen.append(Passed(epochs=float(epochs), x=x, y=y, distance=distance, step=step))
        previous = lifted
    return seen


def _sides(triangle: Triangle, points: int, margin: float) -> tuple[list[float], list[float]]:
    """The rectangle around the three networks: its columns and its rows, the margin being the same on all sides."""
    across, up = zip(*triangle.corners, strict=True)
    room = margin * max(max(across) - min(across), max(up))
    return spaced(min(across) - room, max(across) + room, points), spaced(-room, max(up) + room, points)


def _undisturbed_loss(network: nn.Module, data: TensorData) -> float:
    with undisturbed(network), torch.no_grad():
        return scores(network, data)[0].loss
