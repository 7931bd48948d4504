"""Options of the optimizer ``sgd``."""

from __future__ import annotations

from typing import Any

import attrs

from anarch_core.plugin import opt


def _with_momentum(options: SgdOptions, attribute: attrs.Attribute[Any], value: bool) -> None:
    if value and options.momentum == 0:
        msg = f"{attribute.name!r} needs a momentum above 0"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class SgdOptions:
    """Momentum and weight decay, in the conventions of ``torch.optim.SGD``."""

    momentum: float = attrs.field(
        default=0.0,
        converter=float,
        validator=[attrs.validators.ge(0.0), attrs.validators.lt(1.0)],
        metadata=opt("Part of the last step's velocity that is kept."),
    )
    weight_decay: float = attrs.field(
        default=0.0,
        converter=float,
        validator=attrs.validators.ge(0.0),
        metadata=opt("L2 penalty: this times the weight is added to its gradient."),
    )
    nesterov: bool = attrs.field(default=False, validator=_with_momentum, metadata=opt("Nesterov's form of momentum."))
