"""Options of the relaxation ``tiled``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class TiledOptions:
    """How far sharing is given up: 1 is a convolution, the output size a locally connected layer."""

    period: int = attrs.field(
        default=2, validator=between(1, 10_000), metadata=opt("Positions share weights where they are equal modulo this period.")
    )
