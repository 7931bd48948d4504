"""Options of the probe ``filters``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class FiltersOptions:
    """Which filters to keep."""

    layer: str | None = attrs.field(
        default=None, metadata=opt("Path of the layer; the first relaxed one (or the first convolution) if not given.")
    )
    channels: int = attrs.field(default=8, validator=between(1, 10_000), metadata=opt("Output channels, the first ones."))
    position: Literal["first", "centre"] = attrs.field(
        default="centre", metadata=opt("Output position: 'first' is the top left corner of the paper's figure.")
    )
