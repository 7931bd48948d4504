"""Options of the schedule ``log``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class LogOptions:
    """How dense the switch times are."""

    saves: int = attrs.field(
        default=20,
        validator=between(2, 1000),
        metadata=opt("Points from epoch 1 to the last; those that fall into the same epoch count once, and epoch 0 is added."),
    )
