"""Options of the optimizer ``sgd``."""

from __future__ import annotations

from typing import Any

import attrs

from anarch_core.plugin import between, opt


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
        validator=between(0, 1, below=True),
        metadata=opt("Part of the last step's velocity that is kept."),
    )
    weight_decay: float = attrs.field(
        default=0.0,
        converter=float,
        validator=between(0, 1000),
        metadata=opt("L2 penalty: this times the weight is added to its gradient."),
    )
    nesterov: bool = attrs.field(default=False, validator=_with_momentum, metadata=opt("Nesterov's form of momentum."))
