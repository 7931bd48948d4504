"""Options of the model ``ista``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class IstaOptions:
    """Size of the dictionary, and how often it is used."""

    atoms: int = attrs.field(default=100, validator=between(1, 100_000), metadata=opt("Columns of the dictionary: numbers of the code."))
    steps: int = attrs.field(default=4, validator=between(1, 1000), metadata=opt("Steps from the zero code."))
