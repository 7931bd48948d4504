"""Options of the relaxation ``heads``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class HeadsOptions:
    """How far sharing is given up."""

    kv_heads: int | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(between(1, 10_000)),
        metadata=opt("Heads of keys and values: a multiple of those there are, which divides the heads of queries; by default these."),
    )
