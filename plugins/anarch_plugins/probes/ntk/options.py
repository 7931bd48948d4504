"""Options of the probe ``ntk``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class NtkOptions:
    """On how many samples."""

    samples: int = attrs.field(
        default=100,
        validator=between(2, 10_000),
        metadata=opt("Training samples, class-balanced and the same every time; all go through the network at once."),
    )
