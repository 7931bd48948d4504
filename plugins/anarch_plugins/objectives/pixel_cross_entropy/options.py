"""Options of the objective ``pixel-cross-entropy``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class PixelCrossEntropyOptions:
    """What does not count, and how sure a network is to be."""

    ignore: int = attrs.field(
        default=-100, validator=between(-(2**31), 2**31), metadata=opt("Label of positions that do not count, as 255 is in many data sets.")
    )
    label_smoothing: float = attrs.field(
        default=0.0,
        converter=float,
        validator=between(0, 1),
        metadata=opt("Probability that is spread evenly over all classes, in the loss wherever it is measured."),
    )
