"""Gated positional self-attention in the place of trained convolutions."""

from __future__ import annotations

from anarch_core.plugin import RelaxationInfo, hookimpl
from anarch_gpsa.options import AttentionOptions


@hookimpl
def anarch_relaxations() -> list[RelaxationInfo]:
    """The relaxation ``gpsa``."""
    return [
        RelaxationInfo(
            name="gpsa",
            summary="Gated positional self-attention: one head for every tap, which may look away from its tap to what the image holds.",
            target="anarch_gpsa.relaxation:AttentionRelaxation",
            options=AttentionOptions,
            references=(
                "d'Ascoli, Touvron, Leavitt, Morcos, Biroli, Sagun 2021, ConViT",
                "d'Ascoli, Sagun, Biroli, Morcos 2021, Transformed CNNs",
                "Cordonnier, Loukas, Jaggi 2020, On the Relationship between Self-Attention and Convolutional Layers",
            ),
        )
    ]
