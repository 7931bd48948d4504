"""A straight path for each layer alone, and the barrier on it (Adilova et al. 2024, layer-wise linear mode connectivity)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import attrs
from torch import nn

from anarch_core.bounds import shown
from anarch_core.data.tensor_data import TensorData
from anarch_core.display import Displayed, Overview, Table
from anarch_core.errors import ProbeError
from anarch_core.paths.chosen_layers import Rest, chosen_layers
from anarch_core.paths.curves import straight
from anarch_core.paths.ground import Ground, measured_on
from anarch_core.paths.interpolation import require_points, require_side
from anarch_core.paths.profile import Profile
from anarch_core.training.evaluation import Score

LAYER_BARRIERS = (
    "averaged: training loss with the mean of both networks' layers, less the mean loss of the two networks; barrier: highest training "
    "loss on the path of the layer, less the straight line between the losses of its ends; swapped: training loss with the other's layer"
)
"""What the numbers of a layer are, for those who show them."""


@attrs.frozen(kw_only=True)
class LayerPath:
    """What was met while one layer went from one network to the other, and all others stayed.

    Attributes:
        size: how many numbers moved, mixed buffers among them.
        profile: losses and scores; its barriers are measured against the ends of this path, one of which is neither network.
        train: training loss with the layer averaged, less the mean loss of the two networks, the barrier of Adilova et al. 2024; None where
            one of these is not finite.
        test: likewise, in test loss.
        swapped: training loss with the layer of the network that the others are not of; None where it is not finite.
    """

    size: int
    profile: Profile
    train: float | None
    test: float | None
    swapped: float | None


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
        rows = []
        for path, layer in self.layers.items():
            numbers = (layer.train, layer.profile.train_barrier.chord, layer.swapped)
            rows.append([path or "the network", f"{layer.size:,}", *("–" if number is None else f"{number:.4g}" for number in numbers)])
        return Overview(
            title=f"a straight path for each layer, with the others of the {self.rest} network",
            tables=[Table(headings=["layer", "numbers", "averaged", "barrier", "swapped"], rows=rows)],
            notes=[LAYER_BARRIERS],
        )


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
        points: on each path, both ends included, from 3 to 10,000, an odd number, so that the middle is one of them.
        samples: training samples, class-balanced; all if None.
        progress: called with (done, total) points.

    Raises:
        DataError: the data are not what their objective takes.
        ProbeError: the networks have no common architecture or differ in what cannot be mixed, the number of points is out of range or
            even, or a layer pattern matches nothing.
    """
    require_points("linear", points)
    if points % 2 == 0:
        msg = f"a layer is averaged in the middle of its path, which is none of {shown(points)} points; take an odd number of them"
        raise ProbeError(msg)
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
        swapped = profile.train[-1 if rest == "first" else 0].loss
        found[path] = LayerPath(
            size=confined.landscape.size + sum(pair[0].numel() for pair in confined.ends.buffers.values()),
            profile=profile,
            train=_averaged(profile.train, whole.train),
            test=_averaged(profile.test, whole.test),
            swapped=swapped if math.isfinite(swapped) else None,
        )
    return LayerPaths(rest=rest, layers=found)


def _averaged(path: Sequence[Score], networks: Sequence[Score]) -> float | None:
    """Loss in the middle of a path, less the mean loss of two networks."""
    above = path[len(path) // 2].loss - (networks[0].loss + networks[1].loss) / 2
    return above if math.isfinite(above) else None
