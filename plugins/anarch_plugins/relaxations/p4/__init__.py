"""Group-equivariant convolution over quarter turns: a small network of it, and its relaxation into ordinary convolutions."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import ModelInfo, RelaxationInfo, hookimpl
from anarch_plugins.relaxations.p4.options import P4CnnOptions

SOURCE = "Cohen & Welling 2016, Group Equivariant Convolutional Networks, https://arxiv.org/abs/1602.07576"


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """The model ``p4-cnn``."""
    return [
        ModelInfo(
            name="p4-cnn",
            summary="Three convolutions over the group p4 and a linear head: outputs do not change when images are turned by 90 degrees.",
            target="anarch_plugins.relaxations.p4.model:build",
            called="CNN",
            options=P4CnnOptions,
            references=(SOURCE,),
        )
    ]


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``p4``."""
    return [
        RelaxationInfo(
            name="p4",
            summary="Convolution over the group p4 becomes an ordinary one: four orientations go their own ways.",
            target="anarch_plugins.relaxations.p4.relaxation:P4Relaxation",
            references=(SOURCE,),
        )
    ]
