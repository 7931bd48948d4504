"""A straight path for each layer alone, and the barrier on it (Adilova et al. 2024, layer-wise linear mode connectivity)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import attrs
from torch import nn

from anarch_core.data.tensor_data import TensorData
from anarch_core.display import Displayed, Overview, Table
from anarch_core.paths.chosen_layers import Rest, chosen_layers
from anarch_core.paths.curves import straight
from anarch_core.paths.ground import Ground, measured_on
from anarch_core.paths.interpolation import require_points, require_side
from anarch_core.paths.profile import Barrier, Profile


@attrs.frozen(kw_only=True)
class LayerPath:
    """What was met while one layer went from one network to the other, and all others stayed.

    Attributes:
        weights: how many numbers moved, mixed buffers among them.
        profile: losses and scores; its barriers are measured against the ends of this path.
        train: barriers in training loss measured against the losses of the two whole networks, as by Adilova et al. 2024: ``chord`` is the
            highest loss less that of the straight line between theirs. It may be negative where the networks are not equally good.
        test: likewise, in test loss.
    """

    weights: int
    profile: Profile
    train: Barrier
    test: Barrier


@attrs.frozen(kw_only=True, repr=False)
class LayerPaths(Displayed):
    """A path for each layer.

    Attributes:
        rest: the network that the layers are of that do not move.
        layers: by path, in the order of the network.
    """

    rest: Rest
    layers: Mapping[str, LayerPath]

    def overview(self) -> Overview:
        """Barriers by layer; shown by ``print`` and by notebooks."""
        headings = ["layer", "weights", "other layer's loss", "barrier", "against the networks"]
        return Overview(
            title="a straight path for each layer",
            facts=[("the others", f"those of the {self.rest} network")],
            tables=[Table(headings=headings, rows=[[path or "the network", *_row(each, self.rest)] for path, each in self.layers.items()])],
            notes=[MEANING],
        )


MEANING = (
    "barrier: highest training loss less the straight line between the losses of the path's own ends; against the networks: less that "
    "between the losses of the two whole networks"
)


def _row(layer: LayerPath, rest: Rest) -> list[str]:
    numbers = (layer.profile.train[-1 if rest == "first" else 0].loss, layer.profile.train_barrier.chord, layer.train.chord)
    return [f"{layer.weights:,}", *("–" if number is None else f"{number:.4g}" for number in numbers)]


def layer_by_layer(
    a: nn.Module,
    b: nn.Module,
    data: TensorData,
    *,
    layers: str | Sequence[str] = "*",
    rest: Rest = "first",
    points: int = 11,
    samples: int | None = 1000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> LayerPaths:
    """Walk a straight path for each layer, along which that layer alone moves; batch-norm statistics are estimated at every point.

    Args:
        a: the network at position 0; never changed.
        b: the network at position 1; never changed.
        data: on the networks' device.
        layers: paths or shell patterns of the layers, as in :func:`anarch_core.relax`.
        rest: the network that all else is of, ``"first"`` or ``"second"``.
        points: on each path, both ends included, from 3 to 10,000.
        samples: training samples, class-balanced; all if None.
        progress: called with (done, total) points.

    Raises:
        DataError: the data are not what their objective takes.
        ProbeError: the networks have no common architecture or differ in what cannot be mixed, the number of points is out of range, or a
            layer pattern matches nothing.
    """
    require_points("linear", points)
    require_side(rest)
    ground = Ground.between(a, b, measured_on(data, samples, a, b))
    chosen = chosen_layers(ground.ends, layers)
    whole = ground.walk(functools.partial(straight, *ground.weights), "linear", 2, lambda done, total: None)
    found: dict[str, LayerPath] = {}
    for number, (path, moving) in enumerate(chosen.items()):
        confined = ground.confined(moving, rest)
        profile = confined.walk(
            functools.partial(straight, *confined.weights),
            "linear",
            points,
            lambda done, total, before=number * points: progress(before + done, len(chosen) * points),  # type: ignore[misc]
        )
        found[path] = LayerPath(
            weights=confined.landscape.size + sum(pair[0].numel() for pair in confined.ends.buffers.values()),
            profile=profile,
            train=Barrier.of(profile.positions, [score.loss for score in profile.train], (whole.train[0].loss, whole.train[1].loss)),
            test=Barrier.of(profile.positions, [score.loss for score in profile.test], (whole.test[0].loss, whole.test[1].loss)),
        )
    return LayerPaths(rest=rest, layers=found)
