"""Options of the models ``vit`` and ``resmlp``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class TokenOptions:
    """What both have."""

    patch: int = attrs.field(
        default=4, validator=between(1, 1024), metadata=opt("Points per side of a patch; each patch is one token. Divides every side.")
    )
    width: int = attrs.field(default=32, validator=between(1, 100_000), metadata=opt("Numbers per token."))
    depth: int = attrs.field(default=3, validator=between(1, 1000), metadata=opt("Blocks that a token passes."))


@attrs.frozen(kw_only=True)
class VitOptions(TokenOptions):
    """Attention of the transformer, and where it knows positions from."""

    heads: int = attrs.field(default=4, validator=between(1, 10_000), metadata=opt("Heads of queries. Divides the width."))
    kv_heads: int = attrs.field(
        default=1,
        validator=between(1, 10_000),
        metadata=opt("Heads of keys and values: 1 for multi-query attention, as many as `heads` for multi-head attention. Divides them."),
    )
    positions: Literal["relative", "absolute"] = attrs.field(
        default="relative",
        metadata=opt("A bias of attention per offset between two tokens (Swin), or a vector added to each token (ViT)."),
    )
    tied: bool = attrs.field(default=False, metadata=opt("One block, called `depth` times (ALBERT)."))


@attrs.frozen(kw_only=True)
class ResmlpOptions(TokenOptions):
    """How tokens are mixed."""

    circulant: bool = attrs.field(
        default=False, metadata=opt("Offsets between tokens count modulo the side: circulant matrices instead of Toeplitz ones.")
    )
