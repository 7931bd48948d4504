"""Options of the probe ``plane``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class PlaneOptions:
    """Which planes, and how finely they are looked at."""

    through: tuple[Literal["parent", "control", "random"], ...] = attrs.field(
        default=("parent",),
        validator=attrs.validators.min_len(1),
        metadata=opt(
            "Planes: through the network, its projection and the one it was lifted from (parent) or its control, or of random directions."
        ),
    )
    points: int = attrs.field(default=15, validator=between(2, 1000), metadata=opt("Points on each side of the rectangle."))
    margin: float = attrs.field(
        default=0.3,
        converter=float,
        validator=between(0, 100),
        metadata=opt("Room around three networks, in parts of the longer side of the rectangle that just holds them."),
    )
    radius: float = attrs.field(
        default=1.0,
        converter=float,
        validator=between(0, 10**6, above=True),
        metadata=opt("Half a side of the random plane; 1 is a step as long as the network, filter by filter."),
    )
    samples: int = attrs.field(
        default=1000, validator=between(1, 10**9), metadata=opt("Training samples, and samples of the test set, class-balanced.")
    )
