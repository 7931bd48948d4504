"""The probe ``plane``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import attrs
import torch
from torch import nn

from anarch_core.errors import ProbeError
from anarch_core.paths import NoPlaneError, Plane, Profile, Surface, plane, random_plane
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext, ProbeRehearsal, finite, require_relaxed_layers
from anarch_core.relaxation import project
from anarch_plugins.probes.plane.options import PlaneOptions

EDGES = {"first_second": "{origin}_projection", "second_third": "projection_network", "first_third": "{origin}_network"}
"""What the straight ways between the three networks are called."""

COORDINATES = "n^(1/2) w, where a weight w stands for n entries of the matrix from inputs to outputs"


class PlaneProbe(AbstractProbe):
    """Evaluates the plane through the network, its projection, and the network it was lifted from or its control; and one at random.

    The origin is the parent (or the control), x leads to the projection and y to the network. In coordinates in which lengths are those of
    the matrices from inputs to outputs the projection is orthogonal: along x is what the constrained network could have learned, along y
    what it could not.

    Scalars, of the former planes: training losses ``loss_<network>``, heights over the higher end ``barrier_<one>_<other>`` and lengths
    ``distance_<one>_<other>`` of the straight ways between the three, and ``trajectory_share_<origin>``, the part of the squared length of
    the steps of the training that lies in the plane. Of the random plane: the training loss of the network, the lowest and the highest one,
    ``random_loss``, ``random_lowest`` and ``random_highest``. What cannot be measured is None, and the details say why.
    """

    options: PlaneOptions

    def __init__(self, options: PlaneOptions) -> None:
        super().__init__(options)
        origins = {name for name in options.through if name != "random"}
        self.needs = frozenset({"data", *origins, *(("relaxed",) if origins else ())})

    def memory(self, rehearsal: ProbeRehearsal) -> int:
        """Of four points of every plane, as further ones take the room of those before them; and a network on the way, kept in a file."""
        few = attrs.evolve(self.options, points=2)
        kept = sum(parameter.nbytes for parameter in rehearsal.context.model.parameters()) if "relaxed" in self.needs else 0
        return kept + rehearsal.peak(lambda: PlaneProbe(few).measure(rehearsal.context))

    def measure(self, context: ProbeContext) -> Measurement:
        """Evaluate every plane.

        Raises:
            ProbeError: there are no data, no relaxed layers, or no network to begin at.
        """
        kinds = tuple(dict.fromkeys(self.options.through))
        data = context.required_data
        scalars: dict[str, float | None] = {}
        details: dict[str, Any] = {
            "samples": {"train": min(self.options.samples, len(data.y_train)), "test": min(self.options.samples, len(data.y_test))},
            "score": context.objective.metric.name,
            "planes": {},
        }
        tensors: dict[str, torch.Tensor] = {}
        for kind in kinds:
            found = self._random(context) if kind == "random" else self._through(context, kind)
            scalars |= found.scalars
            details["planes"][kind] = found.details
            tensors |= {f"{kind}_{name}": tensor for name, tensor in found.tensors.items()}
        units = {name: context.objective.loss_unit for name in scalars if not name.startswith(("distance", "trajectory"))}
        return Measurement(scalars=scalars, units=units, details=details, tensors=tensors)

    def _through(self, context: ProbeContext, origin: Literal["parent", "control"]) -> Measurement:
        require_relaxed_layers(context.model, "plane")
        first: nn.Module | None = getattr(context, origin)
        if first is None:
            msg = f"there is no {origin} for the plane to go through; give one (--{origin}), or take through 'random'"
            raise ProbeError(msg)
        names = [name.format(origin=origin) for name in EDGES.values()]
        try:
            found = plane(
                first,
                project(context.model),
                context.model,
                context.required_data,
                points=self.options.points,
                margin=self.options.margin,
                samples=self.options.samples,
                trajectory=_way(context),
                progress=lambda done, total: context.progress(done, total, f"through the {origin}"),
            )
        except NoPlaneError as error:
            nothing = [*(f"loss_{name}" for name in (origin, "projection", "network")), f"trajectory_share_{origin}"]
            nothing += [f"{what}_{name}" for what in ("barrier", "distance") for name in names]
            return Measurement(scalars=dict.fromkeys(nothing), details={"not_measured": str(error)})
        ends = [found.edges["first_second"].train[0], found.edges["first_second"].train[-1], found.edges["first_third"].train[-1]]
        scalars = {f"loss_{name}": finite(score.loss) for name, score in zip((origin, "projection", "network"), ends, strict=True)}
        edges = {name: found.edges[edge] for name, edge in zip(names, EDGES, strict=True)}
        scalars |= {f"barrier_{name}": profile.train_barrier.excess for name, profile in edges.items()}
        scalars |= {f"distance_{name}": found.distances[edge] for name, edge in zip(names, EDGES, strict=True)}
        scalars[f"trajectory_share_{origin}"] = found.trajectory_share
        return Measurement(scalars=scalars, details=_details(found, origin, edges), tensors=self._tensors(found, context))

    def _tensors(self, found: Plane, context: ProbeContext) -> dict[str, torch.Tensor]:
        way = [[passed.epochs, passed.x, passed.y, passed.distance, passed.step] for passed in found.trajectory]
        return {
            **_tables(found.surface, context.objective.metric.name),
            "corners": torch.tensor(found.corners, dtype=torch.float64),
            **({"trajectory": torch.tensor(way, dtype=torch.float64)} if way else {}),
        }

    def _random(self, context: ProbeContext) -> Measurement:
        found = random_plane(
            context.model,
            context.required_data,
            points=self.options.points,
            radius=self.options.radius,
            samples=self.options.samples,
            seed=context.seed,
            progress=lambda done, total: context.progress(done, total, "at random"),
        )
        low, high = found.surface.range_of_loss()
        details = {
            "directions": "Gaussian, every filter as long as the network's (Li et al. 2018); biases and normalisation are not moved",
            "cosine": found.cosine,
            "radius": self.options.radius,
            "seed": context.seed,
        }
        scalars = {"random_loss": finite(found.train.loss), "random_lowest": low, "random_highest": high}
        return Measurement(scalars=scalars, details=details, tensors=_tables(found.surface, context.objective.metric.name))


def _way(context: ProbeContext) -> Iterator[tuple[float, nn.Module]]:
    """The networks that were kept, between the start of the segment and what is measured; nothing where none were."""
    kept = False
    for epochs, network in context.trajectory():
        if not kept and context.reference is not None:
            yield 0.0, context.reference
        kept = True
        yield epochs, network
    if kept and context.moment == "end":  # at a moment between, the last one that was kept is the measured one
        yield math.nan, context.model


def _tables(found: Surface, score: str) -> dict[str, torch.Tensor]:
    """Columns, rows, and what was met at every point, [y, x]."""
    axes = {name: torch.tensor(places, dtype=torch.float64) for name, places in (("x", found.x), ("y", found.y))}
    return axes | {f"{part}_{name}": found.table(part, name) for part in ("train", "test") for name in ("loss", score)}


def _details(found: Plane, origin: str, edges: Mapping[str, Profile]) -> dict[str, Any]:
    barriers = {name: {part: attrs.asdict(getattr(edge, f"{part}_barrier")) for part in ("train", "test")} for name, edge in edges.items()}
    return {
        "corners": dict(zip((origin, "projection", "network"), map(list, found.corners), strict=True)),
        "coordinates": COORDINATES,
        "barriers": barriers,
        "statistics_shift": found.statistics_shift,
        "trajectory": "epochs (nan at the end), x, y, distance from the plane, step" if found.trajectory else None,
        "trajectory_networks": len(found.trajectory),
    }
