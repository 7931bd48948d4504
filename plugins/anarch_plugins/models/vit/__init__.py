"""Networks of tokens: a vision transformer, and ResMLP with Toeplitz matrices; for images and for signals."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, hookimpl
from anarch_plugins.models.vit.options import ResmlpOptions, VitOptions


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """Register the models."""
    return [
        ModelInfo(
            name="vit",
            summary="A small vision transformer, also for signals: multi-query attention with relative position bias; depth 3, width 32.",
            target="anarch_plugins.models.vit.transformer:build",
            options=VitOptions,
            references=(
                "Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, https://arxiv.org/abs/2010.11929",
                "Shazeer 2019, Fast Transformer Decoding (multi-query attention), https://arxiv.org/abs/1911.02150",
                "Lan et al. 2020, ALBERT (one block at all depths), https://arxiv.org/abs/1909.11942",
            ),
        ),
        ModelInfo(
            name="resmlp",
            summary="ResMLP, also for signals: tokens are mixed by one Toeplitz or circulant matrix per block; depth 3, width 32.",
            target="anarch_plugins.models.vit.resmlp:build",
            options=ResmlpOptions,
            references=("Touvron et al. 2021, ResMLP, https://arxiv.org/abs/2105.03404",),
        ),
    ]
