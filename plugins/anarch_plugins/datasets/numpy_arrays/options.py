"""Options of the data set ``numpy``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class NumpyOptions:
    """Which file or folder, and how to read it."""

    path: Path = attrs.field(
        metadata=opt("The .npz file, or the folder of .npy files; a relative path starts at the data root if there is one.")
    )
    test_fraction: float = attrs.field(
        default=0.2,
        converter=float,
        validator=between(0, 1, above=True, below=True),
        metadata=opt("Share of the samples to test on where there is no test part; always the same ones."),
    )
    layout: Literal["channels-first", "channels-last", "no-channels"] | None = attrs.field(
        default=None,
        metadata=opt(
            "What the axes of inputs behind the first one are; if not given, channels first, and refused where it looks otherwise."
        ),
    )
    first_label: Literal[0, 1] | None = attrs.field(
        default=None, metadata=opt("Number of the first class; if not given 0, and refused where no label is 0.")
    )
