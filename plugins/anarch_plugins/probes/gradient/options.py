"""Options of the probe ``gradient``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class GradientOptions:
    """On how many samples."""

    samples: int | None = attrs.field(
        default=None,
        validator=between(1, 10**9),
        metadata=opt("Training samples, class-balanced and the same every time; 'none' for all of them."),
    )
    batch_size: int = attrs.field(
        default=500, validator=between(1, 10**9), metadata=opt("Samples at once; bounds memory, changes no result.")
    )
