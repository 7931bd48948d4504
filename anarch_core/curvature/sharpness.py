"""How much a loss rises near a network: on average, at its worst, and where one step of its gradient leads.

All are the change of the loss from the network's own, ``L(w + D u) - L(w)``, over ``u`` of a :class:`Neighbourhood`: random ones, the
worst that is no longer than a radius, or the one as long as the radius along the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import attrs
import torch

from anarch_core.curvature.neighbourhood import Neighbourhood

HALVINGS = 12
"""Steps of the ascent are halved so often before a point counts as a maximum."""


@attrs.frozen(kw_only=True)
class AverageSharpness:
    """A mean over random perturbations.

    Attributes:
        value: the mean change of the loss.
        standard_error: of the mean, from the means of the pairs; NaN for a single pair.
        pairs: of a perturbation and its negative.
    """

    value: float
    standard_error: float
    pairs: int


@attrs.frozen(kw_only=True)
class Ascent:
    """A way uphill.

    Attributes:
        start: where it begins: ``"network"``, ``"random"`` or ``"smaller radius"``.
        value: change of the loss where it ends.
        steps: taken.
        last_increase: of the loss, by the last step.
        converged: whether that was at most ``rtol`` of the value, or no step led higher.
    """

    start: str
    value: float
    steps: int
    last_increase: float
    converged: bool


@attrs.frozen(kw_only=True)
class WorstSharpness:
    """The largest change that was found. The true maximum is never below it.

    Attributes:
        value: of the best ascent; at least 0, the change at the network itself.
        ascents: all of them.
        perturbation: ``u`` of the best, [P].
    """

    value: float
    ascents: tuple[Ascent, ...]
    perturbation: torch.Tensor = attrs.field(repr=False, eq=False)


def average_sharpness(
    near: Neighbourhood,
    deviation: float,
    *,
    generator: torch.Generator,
    pairs: int = 10,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> AverageSharpness:
    """Mean change of the loss under normal noise of one deviation in every direction (Jiang et al. 2020; Andriushchenko et al. 2023).

    Every perturbation counts with its negative, which cancels the slope: of small noise the mean is ``deviation² tr(H) / 2``, whatever the
    number of weights. Where there are filters, each is moved by the deviation, of its norm, in a direction uniform on its sphere
    (Li et al. 2018).

    Args:
        near: what the noise is relative to, and which directions there are.
        deviation: of the noise.
        generator: on the network's device.
        pairs: of perturbations, two evaluations of the loss each.
        progress: called with (pairs done, pairs).

    Raises:
        ProbeError: a loss is not finite, or nothing can be moved.
    """
    means = []
    for pair in range(pairs):
        u = near.noise(generator).mul_(deviation)
        means.append((near.change(u) + near.change(u, sign=-1)) / 2)
        progress(pair + 1, pairs)
    value = math.fsum(means) / pairs
    error = math.sqrt(math.fsum((mean - value) ** 2 for mean in means) / (pairs - 1) / pairs) if pairs > 1 else math.nan
    return AverageSharpness(value=value, standard_error=error, pairs=pairs)


def sam_sharpness(near: Neighbourhood, radius: float) -> float:
    """Change of the loss after the one step of ascent that SAM takes: ``u = radius g / |g|`` with the gradient ``g`` by ``u``.

    With the absolute weights as stretch it is that of ASAM, ``radius w² g / |w g|`` by the weights (Kwon et al. 2021). It is 0 where the
    gradient is.

    Args:
        near: what the length is, and which directions there are.
        radius: length of the step (Foret et al. 2021).

    Raises:
        ProbeError: a loss is not finite.
    """
    return near.change(near.onto(near.slope(_origin(near)), radius))


def worst_sharpness(
    near: Neighbourhood,
    radius: float,
    *,
    generator: torch.Generator,
    starts: int = 2,
    steps: int = 20,
    rtol: float = 1e-3,
    smaller: torch.Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> WorstSharpness:
    """The largest change of the loss that projected gradient ascent finds within the radius, best of several starts.

    A step goes as far along the gradient as the radius lets it (for a convex loss this never leads down: Journée et al. 2010), and less far
    where that does not lead up. The first ascent begins at the network, so that its first step is SAM's.

    Args:
        near: what the length is, and which directions there are.
        radius: of the ball.
        generator: on the network's device, for the starts but the first.
        starts: how many ascents, each of its own start.
        steps: of an ascent, at most, a gradient and one or more evaluations of the loss each.
        rtol: increase, of the value, at which an ascent stops.
        smaller: the worst perturbation of a smaller radius, for one more ascent; the value is then at least that one's.
        progress: called with (ascents done, ascents).

    Raises:
        ProbeError: a loss is not finite, or nothing can be moved.
    """
    found: list[Ascent] = []
    best, highest = _origin(near), 0.0
    names = ["network", *["random"] * (starts - 1), *["smaller radius"] * (smaller is not None)]
    for name in names:
        # Where it starts is held by nobody but the ascent, which soon has no use for it.
        end, ascent = _climb(near, radius, _start(name, near, radius, generator, smaller), name, steps, rtol)
        found.append(ascent)
        if ascent.value > highest:
            best, highest = end, ascent.value
        del end
        progress(len(found), len(names))
    return WorstSharpness(value=highest, ascents=tuple(found), perturbation=best)


def _start(name: str, near: Neighbourhood, radius: float, generator: torch.Generator, smaller: torch.Tensor | None) -> torch.Tensor:
    if name == "random":
        return near.onto(near.noise(generator), radius)
    return _origin(near) if smaller is None or name == "network" else smaller.clone()


def _climb(near: Neighbourhood, radius: float, u: torch.Tensor, start: str, steps: int, rtol: float) -> tuple[torch.Tensor, Ascent]:
    """From ``u`` to a higher point."""
    value, increase, converged, taken = near.change(u), 0.0, False, 0
    reach = math.inf  # of a step, in radii
    for _ in range(steps):
        ahead = near.onto(near.slope(u), radius)
        for _ in range(HALVINGS if ahead.any() else 0):
            trial = ahead if math.isinf(reach) else near.into(torch.add(u, ahead, alpha=reach), radius)
            found = near.change(trial)
            if found > value:
                break
            reach = 2.0 if math.isinf(reach) else reach / 2
        else:
            increase, converged = 0.0, True
            break
        u, increase, value, taken, reach = trial, found - value, found, taken + 1, reach * 4
        del ahead, trial  # vectors as large as the network, beside the next gradient
        if increase <= rtol * abs(value):
            converged = True
            break
    return u, Ascent(start=start, value=value, steps=taken, last_increase=increase, converged=converged)


def _origin(near: Neighbourhood) -> torch.Tensor:
    return torch.zeros(near.risk.size, dtype=near.risk.dtype, device=near.risk.device)
