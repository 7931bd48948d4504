"""Options of the penalty ``bound``."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from anarch_core.plugin import between, opt
from anarch_core.schedule import Moment


def _moment(_: object, __: attrs.Attribute[Any], text: str | None) -> None:
    if text is not None:
        Moment.parse(text, 1)


@attrs.frozen(kw_only=True)
class BoundOptions:
    """What is bounded, by how much, and how fast multipliers move."""

    bound: float = attrs.field(
        default=0.05,
        converter=float,
        validator=between(0, 1),
        metadata=opt("Largest norm of the parts over the norm of a layer's weight, at the end; 0 asks for a constrained layer."),
    )
    of: Literal["both", "unshared", "off-local"] = attrs.field(
        default="both", metadata=opt("Parts that are bounded together; off-local: the deviation δ of the paper.")
    )
    rate: float = attrs.field(
        default=0.1,
        converter=float,
        validator=between(0, 10**6, above=True),
        metadata=opt("What a step adds to a multiplier, per unit by which the bound is exceeded."),
    )
    ramp: Literal["constant", "linear", "cosine"] = attrs.field(
        default="constant", metadata=opt("How the bound goes from its start to its end within a segment; constant: it is the end at once.")
    )
    start: float = attrs.field(default=1.0, converter=float, validator=between(0, 1), metadata=opt("The bound before the ramp begins."))
    begins: str = attrs.field(default="0ep", validator=_moment, metadata=opt("Moment of the segment at which the ramp begins: 5ep, 500it."))
    ends: str | None = attrs.field(
        default=None, validator=_moment, metadata=opt("Moment at which it ends; the end of the segment if not given.")
    )
