"""Options of the data set ``tensors``."""

from __future__ import annotations

from pathlib import Path

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class TensorsOptions:
    """Which file, and how much of it to test on."""

    path: Path = attrs.field(metadata=opt("The safetensors file; a relative path starts at the data root if there is one."))
    test_fraction: float = attrs.field(
        default=0.2,
        converter=float,
        validator=between(0, 1, above=True, below=True),
        metadata=opt("Share of the samples to test on where the file has no x_test and y_test; always the same ones."),
    )
