"""Options of the optimizers ``adam`` and ``adamw``."""

from __future__ import annotations

from typing import Any

import attrs

from anarch_core.plugin import between, opt


def _two_averages(_: object, attribute: attrs.Attribute[Any], value: tuple[float, ...]) -> None:
    if len(value) != 2 or not all(0 <= beta < 1 for beta in value):
        msg = f"{attribute.name!r} must be two numbers from 0 to below 1: {value}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class AdamOptions:
    """The constants of Adam, in the conventions of ``torch.optim.Adam``."""

    betas: tuple[float, ...] = attrs.field(
        default=(0.9, 0.999), validator=_two_averages, metadata=opt("Decay of the running means of the gradient and of its square.")
    )
    eps: float = attrs.field(
        default=1e-8, converter=float, validator=between(0, 1, above=True), metadata=opt("Added to the root of the mean square.")
    )
    weight_decay: float = attrs.field(
        default=0.0,
        converter=float,
        validator=between(0, 1000),
        metadata=opt("L2 penalty: this times the weight is added to its gradient."),
    )


@attrs.frozen(kw_only=True)
class AdamWOptions(AdamOptions):
    """The constants of AdamW, in the conventions of ``torch.optim.AdamW``."""

    weight_decay: float = attrs.field(
        default=0.01,
        converter=float,
        validator=between(0, 1000),
        metadata=opt("Every step shrinks the weights by this times the learning rate."),
    )
