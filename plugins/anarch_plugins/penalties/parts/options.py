"""Options of the penalty ``parts``."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from anarch_core.plugin import between, opt
from anarch_core.schedule import Moment


def _moment(_: object, __: attrs.Attribute[Any], text: str | None) -> None:
    if text is not None:
        Moment.parse(text, 1)


@attrs.frozen(kw_only=True)
class PartsOptions:
    """Which parts are held, and how firmly over time."""

    weight: float = attrs.field(
        default=0.1,
        converter=float,
        validator=between(0, 10**6),
        metadata=opt("Weight λ at the end. Under plain descent a step shrinks the parts by the factor 1 - learning rate · λ."),
    )
    of: Literal["both", "unshared", "off-local"] = attrs.field(default="both", metadata=opt("Parts that are held."))
    ramp: Literal["constant", "linear", "cosine"] = attrs.field(
        default="constant", metadata=opt("How λ goes from its start to its end within a segment; constant: it is the end at once.")
    )
    start: float = attrs.field(default=0.0, converter=float, validator=between(0, 10**6), metadata=opt("λ before the ramp begins."))
    begins: str = attrs.field(default="0ep", validator=_moment, metadata=opt("Moment of the segment at which the ramp begins: 5ep, 500it."))
    ends: str | None = attrs.field(
        default=None, validator=_moment, metadata=opt("Moment at which it ends; the end of the segment if not given.")
    )
