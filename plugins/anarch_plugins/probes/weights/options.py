"""Options of the probe ``weights``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class WeightsOptions:
    """Which block to keep, and how fine the histograms are."""

    layer: str | None = attrs.field(
        default=None, metadata=opt("Path of the layer of the block; the first relaxed one (or convolution) if not given.")
    )
    size: int = attrs.field(default=200, validator=between(1, 10_000), metadata=opt("Rows and columns of the block, from the first on."))
    bins: int = attrs.field(default=100, validator=between(2, 10_000), metadata=opt("Bins of the histograms."))
