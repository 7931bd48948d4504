"""Options of the models."""

from __future__ import annotations

import attrs

from anarch_core.plugin import between, opt


@attrs.frozen(kw_only=True)
class MonarchMlpOptions:
    """Sizes of the network."""

    width: int = attrs.field(default=64, validator=between(1, 65536), metadata=opt("Units of each hidden layer, a multiple of the blocks."))
    depth: int = attrs.field(default=2, validator=between(1, 100), metadata=opt("How many Monarch layers there are."))
    blocks: int = attrs.field(default=8, validator=between(1, 65536), metadata=opt("Blocks of each of a layer's two factors."))


@attrs.frozen(kw_only=True)
class HashedMlpOptions:
    """Sizes of the network."""

    width: int = attrs.field(default=64, validator=between(1, 65536), metadata=opt("Units of each hidden layer."))
    depth: int = attrs.field(default=2, validator=between(1, 100), metadata=opt("How many hashed layers there are."))
    codes: int = attrs.field(default=512, validator=between(1, 2**31), metadata=opt("Numbers in the codebook of each layer."))
    seed: int = attrs.field(default=0, validator=between(0, 2**31), metadata=opt("Seed of the hash, that of each layer by its depth more."))
