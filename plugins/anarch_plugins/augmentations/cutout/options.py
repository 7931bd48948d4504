"""Options of the augmentation ``cutout``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class CutoutOptions:
    """How much is blanked."""

    size: int = attrs.field(
        default=8,
        validator=between(1, 65_536),
        metadata=opt("Side of the square. Its centre is any position, so that parts of it may lie outside of the input."),
    )
