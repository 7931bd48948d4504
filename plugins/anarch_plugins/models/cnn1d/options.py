"""Options of the model ``cnn1d``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class Cnn1dOptions:
    """Width of the network."""

    channels: int = attrs.field(default=25, validator=attrs.validators.ge(1), metadata=opt("Channels of each convolution."))
