"""Options of the schedule ``plateau``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class PlateauOptions:
    """What counts as a plateau."""

    patience: int = attrs.field(default=5, validator=between(1, 10**6), metadata=opt("Epochs without improvement after which to switch."))
    min_delta: float = attrs.field(
        default=0.0,
        converter=float,
        validator=between(0, 10**6),
        metadata=opt("The loss must fall below its best by more than this to count as improved."),
    )
    column: str | None = attrs.field(
        default=None,
        metadata=opt("Column of the history to watch instead of the loss, which is that of the validation part, else of training."),
    )
    mode: Literal["min", "max"] = attrs.field(default="min", metadata=opt("Whether less is better, or more."))
