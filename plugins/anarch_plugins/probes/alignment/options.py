"""Options of the probe ``alignment``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class AlignmentOptions:
    """How the channels are matched, and where the loss is measured."""

    points: int = attrs.field(default=11, validator=between(3, 10_000), metadata=opt("Points on the line, both ends included."))
    samples: int = attrs.field(default=1000, validator=between(1, 10**9), metadata=opt("Training samples, class-balanced."))
    restarts: int = attrs.field(
        default=1, validator=between(0, 1000), metadata=opt("Further random orders in which groups of channels are matched.")
    )
