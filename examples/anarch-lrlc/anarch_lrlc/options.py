"""Options of the relaxation ``lrlc``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class LowRankOptions:
    """How many filter banks there are, and how positions mix them."""

    banks: int = attrs.field(
        default=4, validator=attrs.validators.ge(2), metadata=opt("Filter banks, the spatial rank; more than one, or nothing is relaxed.")
    )
    coefficients: Literal["separable", "full"] = attrs.field(
        default="separable", metadata=opt("Coefficients as a sum of one table per axis, or one for every position.")
    )
    normalisation: Literal["softmax", "none"] = attrs.field(
        default="softmax", metadata=opt("Coefficients as a softmax over the banks, or as they are.")
    )
    spread: float = attrs.field(
        default=0.05,
        converter=float,
        validator=attrs.validators.gt(0.0),
        metadata=opt("How far apart the banks start, as a part of the filters' root mean square; identical banks would never part."),
    )
    seed: int = attrs.field(default=0, validator=attrs.validators.ge(0), metadata=opt("Seed of the differences between the banks."))
