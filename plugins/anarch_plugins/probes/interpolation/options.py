"""Options of the probe ``interpolation``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class InterpolationOptions:
    """Which paths, and how they are found."""

    methods: tuple[Literal["linear", "curvilinear", "string", "band", "logits", "probabilities"], ...] = attrs.field(
        default=("linear",), validator=attrs.validators.min_len(1), metadata=opt("How the path is made; several are compared.")
    )
    origin: Literal["projection", "parent", "reference"] = attrs.field(
        default="projection",
        metadata=opt("Where the path begins: the network's own projection, the network it was lifted from, or its segment's start."),
    )
    points: int = attrs.field(default=11, validator=between(3, 10_000), metadata=opt("Points on the path, both ends included."))
    samples: int = attrs.field(default=1000, validator=between(1, 10**9), metadata=opt("Training samples, class-balanced."))
    steps: int = attrs.field(default=200, validator=between(1, 10**6), metadata=opt("Steps of descent for 'string' and 'band'."))
    lr: float = attrs.field(default=0.05, converter=float, validator=between(0, 10**6, above=True), metadata=opt("Step size of descent."))
    stiffness: float = attrs.field(
        default=1.0,
        converter=float,
        validator=between(0, 10**6),
        metadata=opt("Stiffness k of the springs; a large one keeps the path straight."),
    )
    batch_size: int = attrs.field(default=100, validator=between(1, 10**9), metadata=opt("Samples of a step of descent."))
