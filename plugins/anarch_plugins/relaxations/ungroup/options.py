"""Options of the relaxation ``ungroup``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class UngroupOptions:
    """How many groups are left."""

    groups: int = attrs.field(
        default=1,
        validator=between(1, 10**6),
        metadata=opt("Groups that are left, a divisor of those of every layer; 1 connects all channels."),
    )
