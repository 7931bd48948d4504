"""Options of the probe ``stability``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class StabilityOptions:
    """Where between the two networks it is looked, and on what."""

    points: int = attrs.field(default=11, validator=between(3, 10_000), metadata=opt("Points on the line, both ends included."))
    samples: int = attrs.field(default=1000, validator=between(1, 10**9), metadata=opt("Training samples, class-balanced."))
