"""Options of the model ``pruned-mlp``."""

from __future__ import annotations

from typing import Any, Literal

import attrs

from anarch_core.plugin import between, opt


def _widths(_: object, attribute: attrs.Attribute[Any], value: tuple[int, ...]) -> None:
    if not value or not all(1 <= width <= 100_000 for width in value):
        msg = f"{attribute.name!r} must be widths of at least one hidden layer, each from 1 to 100000: {value}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class PrunedMlpOptions:
    """The hidden layers, and which of their weights are zero."""

    hidden: tuple[int, ...] = attrs.field(default=(300, 100), validator=_widths, metadata=opt("Widths of the hidden layers."))
    pruned: float = attrs.field(
        default=0.9,
        converter=float,
        validator=between(0, 1, below=True),
        metadata=opt("Fraction of each hidden layer's weights that are zero; half of it of the output layer's."),
    )
    mask: Literal["magnitude", "random"] = attrs.field(
        default="magnitude", metadata=opt("Which weights are pruned at initialisation: the smallest of each layer, or any.")
    )
