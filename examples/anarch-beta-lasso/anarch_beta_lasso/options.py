"""Options of the optimizer ``beta-lasso``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class BetaLassoOptions:
    """How strongly relaxed weights are held at zero."""

    beta: float = attrs.field(
        default=50.0,
        converter=float,
        validator=attrs.validators.ge(0.0),
        metadata=opt("Weights below beta times the penalty are set to zero after every step (hard threshold)."),
    )
    penalty: float = attrs.field(
        default=2e-5,
        converter=float,
        validator=attrs.validators.ge(0.0),
        metadata=opt("L1 penalty λ on the weights of relaxed layers."),
    )
    threshold: Literal["hard", "soft"] = attrs.field(
        default="hard",
        metadata=opt("What follows the step: zeros below beta · λ (hard), or the proximal step of the penalty, without beta (soft)."),
    )
