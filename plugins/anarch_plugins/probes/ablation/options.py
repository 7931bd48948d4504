"""Options of the probe ``ablation``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class AblationOptions:
    """On which data, and how many random controls."""

    part: Literal["test", "train", "validation"] = attrs.field(default="test", metadata=opt("Data to evaluate on."))
    random_masks: int = attrs.field(
        default=3,
        validator=between(0, 1000),
        metadata=opt("Random masks of the local part's size in every row, averaged over; the control."),
    )
