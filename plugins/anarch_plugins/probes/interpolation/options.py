"""Options of the probe ``interpolation``."""

from __future__ import annotations

from typing import Literal

import attrs

from anarch_core.plugin import between, opt


def _has_a_middle(options: InterpolationOptions, field: attrs.Attribute[bool], value: bool) -> None:
    if value and options.points % 2 == 0:
        msg = f"'{field.name}' averages layers in the middle of a path; take an odd number of 'points', not {options.points}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class InterpolationOptions:
    """Which paths, and how they are found."""

    methods: tuple[Literal["linear", "curvilinear", "string", "band", "bezier", "polygon", "logits", "probabilities"], ...] = attrs.field(
        default=("linear",), validator=attrs.validators.min_len(1), metadata=opt("How the path is made; several are compared.")
    )
    origin: Literal["projection", "parent", "reference", "control"] = attrs.field(
        default="projection",
        metadata=opt(
            "Where the path begins: the network's own projection, the network it was lifted from, its segment's start, or the control "
            "that went on without a switch."
        ),
    )
    points: int = attrs.field(default=11, validator=between(3, 10_000), metadata=opt("Points on the path, both ends included."))
    samples: int = attrs.field(default=1000, validator=between(1, 10**9), metadata=opt("Training samples, class-balanced."))
    steps: int = attrs.field(default=200, validator=between(1, 10**6), metadata=opt("Steps of descent for 'string' and 'band'."))
    lr: float = attrs.field(default=0.05, converter=float, validator=between(0, 10**6, above=True), metadata=opt("Step size of descent."))
    stiffness: float = attrs.field(
        default=1.0,
        converter=float,
        validator=between(0, 10**6),
        metadata=opt("Stiffness k of the springs; a large one keeps the path straight."),
    )
    curve_steps: int = attrs.field(
        default=1000, validator=between(1, 10**6), metadata=opt("Steps of training for 'bezier' and 'polygon', each at one point.")
    )
    curve_lr: float = attrs.field(
        default=0.05,
        converter=float,
        validator=between(0, 10**6, above=True),
        metadata=opt("Step size of their training, in units of what the ends differ by."),
    )
    batch_size: int = attrs.field(default=100, validator=between(1, 10**9), metadata=opt("Samples of a step of descent."))
    layers: tuple[str, ...] = attrs.field(default=(), metadata=opt("Layers that move, by shell pattern, '!' excludes; all if empty."))
    rest: Literal["origin", "network"] = attrs.field(
        default="origin", metadata=opt("Which network the layers are of that do not move: the one that the path begins at, or the other.")
    )
    layer_wise: bool = attrs.field(
        default=False, validator=_has_a_middle, metadata=opt("Also walk a straight path for each of the layers alone.")
    )
