"""Options of the schedule ``when``."""

from __future__ import annotations

from typing import Any

import attrs

from anarch_core.plugin import between, opt
from anarch_plugins.schedules.when.condition import Condition


def _condition(_: object, attribute: attrs.Attribute[Any], value: str) -> None:
    try:
        Condition.parse(value)
    except ValueError as error:
        msg = f"{attribute.name!r}: {error}"
        raise ValueError(msg) from None


@attrs.frozen(kw_only=True)
class WhenOptions:
    """What has to happen, and how often."""

    condition: str = attrs.field(
        validator=_condition,
        metadata=opt("What has to hold: COLUMN < LEVEL, COLUMN > LEVEL, COLUMN rises, COLUMN falls; columns are those of the history."),
    )
    epochs: int = attrs.field(
        default=1, validator=between(1, 10**6), metadata=opt("Rows in a row in which it has to hold; rows without the number do not count.")
    )
    times: int | None = attrs.field(
        default=1,
        validator=between(1, 10**6),
        metadata=opt("Switches at most, the first ones; none for any number."),
    )
    margin: float = attrs.field(
        default=0.0,
        converter=float,
        validator=between(0, 10**12),
        metadata=opt("How far the number has to be back beyond the level before crossing it counts again."),
    )
