"""Options of the probe ``equivariance``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class EquivarianceOptions:
    """How far to shift, and how many samples."""

    shift: int = attrs.field(
        default=1,
        validator=between(1, 10_000),
        metadata=opt("Pixels the network's input is shifted by; for a layer, output positions its input is shifted by."),
    )
    samples: int = attrs.field(default=500, validator=between(1, 10**9), metadata=opt("Test samples, the first ones."))
