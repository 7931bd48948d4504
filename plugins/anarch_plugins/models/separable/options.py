"""Options of the model ``separable``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class SeparableOptions:
    """Size of the network, and how far its spatial convolutions are separated by channel."""

    channels: int = attrs.field(default=32, validator=between(1, 10_000), metadata=opt("Channels of the first convolution and all others."))
    blocks: int = attrs.field(
        default=3, validator=between(1, 100), metadata=opt("Pairs of a grouped and a pointwise convolution; every second has stride 2.")
    )
    kernel: int = attrs.field(
        default=3, validator=between(1, 99), metadata=opt("Taps per axis of the grouped convolutions, an odd number.")
    )
    groups: int | None = attrs.field(
        default=None,
        validator=between(1, 10_000),
        metadata=opt("Groups of the spatial convolutions, a divisor of the channels; none: one per channel."),
    )
