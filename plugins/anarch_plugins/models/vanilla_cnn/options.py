"""Options of the model ``vanilla-cnn``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class VanillaCnnOptions:
    """Width of the network."""

    channels: int = attrs.field(default=64, validator=attrs.validators.ge(1), metadata=opt("Channels of each convolution."))
