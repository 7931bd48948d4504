"""Options of the relaxation ``gpsa``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import opt


@attrs.frozen(kw_only=True)
class AttentionOptions:
    """Size of the content attention."""

    head_dim: int = attrs.field(
        default=8, validator=attrs.validators.ge(1), metadata=opt("Numbers that a query and a key of one head are compared by.")
    )
    seed: int = attrs.field(default=0, validator=attrs.validators.ge(0), metadata=opt("Seed of the first queries and keys."))
