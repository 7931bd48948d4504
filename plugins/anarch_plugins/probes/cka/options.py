"""Options of the probe ``cka``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class CkaOptions:
    """Which networks are compared, and on which samples."""

    against: tuple[Literal["parent", "control", "reference", "twin", "sibling"], ...] = attrs.field(
        default=("parent",),
        validator=attrs.validators.min_len(1),
        metadata=opt(
            "Networks to compare with: that which was relaxed, the control that went on without a switch, the network at the start of its "
            "segment, the same segment with another order of batches, or of the first seed; several are compared."
        ),
    )
    samples: int = attrs.field(default=1000, validator=between(4, 10**9), metadata=opt("Samples, drawn at random, the same every time."))
    batch_size: int = attrs.field(
        default=250,
        validator=between(4, 10**9),
        metadata=opt("Samples of a minibatch, over which HSIC is averaged; as samples: of all at once."),
    )
    part: Literal["test", "train"] = attrs.field(default="test", metadata=opt("Data that the samples are of."))
