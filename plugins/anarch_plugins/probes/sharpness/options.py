"""Options of the probe ``sharpness``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class SharpnessOptions:
    """Which radii, in which lengths, and how hard the worst is looked for."""

    radii: tuple[float, ...] = attrs.field(
        default=(0.05, 0.5),
        validator=[attrs.validators.min_len(1), between(0, 10**6, above=True)],
        metadata=opt("Lengths of perturbations for the worst and SAM's, plain and adaptive."),
    )
    noise: tuple[float, ...] = attrs.field(
        default=(0.1,),
        validator=[attrs.validators.min_len(1), between(0, 10**6, above=True)],
        metadata=opt(
            "Deviations of the noise of averages in every weight, plain and adaptive; and how far it moves every filter, of its own norm."
        ),
    )
    filter_radii: tuple[float, ...] = attrs.field(
        default=(0.01,),
        validator=[attrs.validators.min_len(1), between(0, 10**6, above=True)],
        metadata=opt("How far every filter may be moved, of its own norm, for the worst and SAM's."),
    )
    definitions: tuple[Literal["average", "worst", "sam"], ...] = attrs.field(
        default=("average", "worst", "sam"),
        validator=attrs.validators.min_len(1),
        metadata=opt("Mean under noise, largest rise that ascent finds within a radius, and rise by one step along the gradient."),
    )
    lengths: tuple[Literal["plain", "adaptive", "filter"], ...] = attrs.field(
        default=("plain", "adaptive", "filter"),
        validator=attrs.validators.min_len(1),
        metadata=opt("What a radius is relative to: nothing, every weight, or every filter."),
    )
    shared: bool = attrs.field(
        default=True, metadata=opt("Also along the shared directions alone, in coordinates that a CNN and its eFCN share.")
    )
    quadratic: bool = attrs.field(
        default=True, metadata=opt("Beside them what the largest eigenvalue of the Hessian predicts of the worst, in plain lengths.")
    )
    pairs: int = attrs.field(
        default=10, validator=between(2, 10**6), metadata=opt("Random perturbations of an average, each with its negative.")
    )
    starts: int = attrs.field(
        default=2, validator=between(1, 1000), metadata=opt("Ascents to the worst: the first from the network, others from random places.")
    )
    steps: int = attrs.field(default=10, validator=between(1, 10**6), metadata=opt("Steps of an ascent, at most."))
    samples: int = attrs.field(
        default=1000, validator=between(1, 10**9), metadata=opt("Training samples, class-balanced and the same every time.")
    )
    batch_size: int = attrs.field(
        default=1000, validator=between(1, 10**9), metadata=opt("Samples at once; bounds memory, changes no result.")
    )
