"""Attention whose heads of queries share keys and values, relaxed: keys and values for every head."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl
from anarch_plugins.relaxations.heads.options import HeadsOptions


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``heads``."""
    return [
        RelaxationInfo(
            name="heads",
            summary="Grouped-query or multi-query attention becomes multi-head attention: each head has keys and values of its own.",
            target="anarch_plugins.relaxations.heads.relaxation:HeadsRelaxation",
            options=HeadsOptions,
            references=(
                "Ainslie et al. 2023, GQA, https://arxiv.org/abs/2305.13245",
                "Shazeer 2019, Fast Transformer Decoding, https://arxiv.org/abs/1911.02150",
            ),
        )
    ]
