"""Grouped and depthwise convolutions whose groups come to see one another."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl
from anarch_plugins.relaxations.ungroup.options import UngroupOptions


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``ungroup``."""
    return [
        RelaxationInfo(
            name="ungroup",
            summary="Grouped or depthwise convolution with fewer groups: channels of different groups are connected.",
            target="anarch_plugins.relaxations.ungroup.relaxation:UngroupRelaxation",
            options=UngroupOptions,
            references=("Howard et al. 2017, MobileNets, https://arxiv.org/abs/1704.04861",),
        )
    ]
