"""Options of the relaxation ``grow``."""

from __future__ import annotations

from typing import Any

import attrs

from anarch_core.plugin import opt


def _numbers(instance: Any, attribute: attrs.Attribute[Any], value: tuple[int, ...]) -> None:
    if not value or not all(0 <= by <= 10_000 for by in value) or not any(value):
        msg = f"{attribute.name} must be one number of taps, or one per axis, from 0 to 10,000 and not all 0: {list(value)}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class GrowOptions:
    """By how much kernels grow."""

    by: tuple[int, ...] = attrs.field(
        default=(1,),
        validator=_numbers,
        metadata=opt("Taps that are added on each side of the kernel: one number for all axes, or one per axis. By 1, 3 becomes 5."),
    )
