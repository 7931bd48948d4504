"""Options of the schedule ``at``."""

from __future__ import annotations

from typing import Any

import attrs

from anarch_core.plugin import opt
from anarch_core.schedule import Moment


def _some_moments(_: object, attribute: attrs.Attribute[Any], value: tuple[str, ...]) -> None:
    if not value:
        msg = f"{attribute.name!r} must name at least one moment"
        raise ValueError(msg)
    for text in value:
        Moment.parse(text, 1)


@attrs.frozen(kw_only=True)
class AtOptions:
    """When to switch."""

    moments: tuple[str, ...] = attrs.field(
        validator=_some_moments,
        metadata=opt("Moments of the trunk: epochs as 20 or 20ep, optimizer steps as 500it."),
    )
