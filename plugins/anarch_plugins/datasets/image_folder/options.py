"""Options of the data set ``image-folder``."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class ImageFolderOptions:
    """How large the images are made."""

    size: int = attrs.field(
        default=32,
        validator=between(1, 65_536),
        metadata=opt("Height and width in pixels that every image is resized to, whatever its proportions."),
    )
