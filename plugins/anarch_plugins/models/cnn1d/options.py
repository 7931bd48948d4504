"""Options of the model ``cnn1d``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class Cnn1dOptions:
    """Width of the network."""

    channels: int = attrs.field(default=25, validator=between(1, 10_000), metadata=opt("Channels of each convolution."))
