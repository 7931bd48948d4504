"""Options of the objective ``cross-entropy``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class CrossEntropyOptions:
    """How sure a network is to be."""

    label_smoothing: float = attrs.field(
        default=0.0,
        converter=float,
        validator=between(0, 1),
        metadata=opt("Probability that is spread evenly over all classes, in the loss wherever it is measured."),
    )
