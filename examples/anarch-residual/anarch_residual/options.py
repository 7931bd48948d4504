"""Options of the optimizer ``residual-sgd``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class ResidualSgdOptions:
    """How readily the dense residuals move."""

    scale: float = attrs.field(
        default=0.1,
        converter=float,
        validator=attrs.validators.ge(0.0),
        metadata=opt("Learning rate of the residuals over that of everything else; 0 keeps the network a CNN."),
    )
    weight_decay: float = attrs.field(
        default=0.0,
        converter=float,
        validator=attrs.validators.ge(0.0),
        metadata=opt("L2 penalty on the residuals alone: how little the network is expected to leave the convolution."),
    )
    momentum: float = attrs.field(
        default=0.0,
        converter=float,
        validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)],
        metadata=opt("Part of the last step's velocity that is kept, for all weights."),
    )
