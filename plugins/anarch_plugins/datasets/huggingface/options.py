"""Options of the data set ``huggingface``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class HuggingFaceOptions:
    """Which data set, and what is what in it."""

    path: str = attrs.field(metadata=opt("Name on the hub, or a folder: of save_to_disk, or of parquet files, images or tables."))
    config: str | None = attrs.field(default=None, metadata=opt("Which of its configurations, where it has several."))
    train: str = attrs.field(default="train", metadata=opt("Split to train on."))
    test: str | None = attrs.field(
        default=None, metadata=opt("Split to test on; if not given test, else validation, else a share of the split to train on.")
    )
    image: str | None = attrs.field(
        default=None, metadata=opt("Column of inputs; if not given the first of image, img and other usual names.")
    )
    label: str | None = attrs.field(
        default=None, metadata=opt("Column of targets; if not given the first of label, labels and other usual names.")
    )
    test_fraction: float = attrs.field(
        default=0.2,
        converter=float,
        validator=between(0, 1, above=True, below=True),
        metadata=opt("Share of the samples to test on where there is no test split; always the same ones."),
    )
    layout: Literal["channels-first", "channels-last", "no-channels"] | None = attrs.field(
        default=None,
        metadata=opt(
            "What the axes of arrays (not of images) behind the first one are; if not given, channels first, and refused where it looks "
            "otherwise."
        ),
    )
    first_label: Literal[0, 1] | None = attrs.field(
        default=None, metadata=opt("Number of the first class; if not given 0, and refused where no label is 0.")
    )
