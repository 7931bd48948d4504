"""Options of the model ``p4-cnn``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class P4CnnOptions:
    """Width of the network."""

    channels: int = attrs.field(
        default=16, validator=between(1, 10_000), metadata=opt("Channels of each layer, in four orientations each.")
    )
