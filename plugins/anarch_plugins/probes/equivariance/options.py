"""Options of the probe ``equivariance``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class EquivarianceOptions:
    """How far to shift, and how many samples."""

    shift: int = attrs.field(
        default=1,
        validator=attrs.validators.ge(1),
        metadata=opt("Pixels the network's input is shifted by; for a layer, output positions its input is shifted by."),
    )
    samples: int = attrs.field(default=500, validator=attrs.validators.ge(1), metadata=opt("Test samples, the first ones."))
