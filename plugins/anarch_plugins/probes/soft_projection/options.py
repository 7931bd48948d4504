"""Options of the probe ``soft-projection``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class SoftProjectionOptions:
    """How many numbers, which parts, and on which data."""

    points: int = attrs.field(
        default=11, validator=between(2, 1000), metadata=opt("Values of s from 0 to 1, evenly spaced, both included.")
    )
    scaled: tuple[Literal["both", "unshared", "off-local"], ...] = attrs.field(
        default=("both", "unshared", "off-local"),
        validator=attrs.validators.min_len(1),
        metadata=opt("Parts that are scaled, the other staying as it is; several are compared."),
    )
    part: Literal["test", "train", "validation"] = attrs.field(default="test", metadata=opt("Data to evaluate on."))
