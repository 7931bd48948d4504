"""Options of the augmentation ``crop``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class CropOptions:
    """How far, and what comes in from outside."""

    padding: int = attrs.field(
        default=4,
        validator=between(1, 65_536),
        metadata=opt("Positions that are padded at either end of every axis; all shifts within them are equally likely."),
    )
    mode: Literal["zero", "reflect"] = attrs.field(
        default="zero", metadata=opt("What the padding holds: zero, the mean of normalised inputs, or the input reflected at its edge.")
    )
