"""Structured linear layers, and what becomes of them when their structure is given up."""

from __future__ import annotations

from anarch_core.plugin import ModelInfo, RelaxationInfo, hookimpl
from anarch_monarch.options import HashedMlpOptions, MonarchMlpOptions

anarch_api = (1, 0)


@hookimpl
def anarch_relaxations() -> list[RelaxationInfo]:
    """The relaxations ``monarch`` and ``codebook``."""
    return [
        RelaxationInfo(
            name="monarch",
            summary="Linear layer with a Monarch matrix to a dense one.",
            target="anarch_monarch.relaxation:MonarchRelaxation",
            references=(
                "Dao, Chen, Sohoni, Desai, Poli, et al. 2022, Monarch: Expressive Structured Matrices for Efficient and Accurate Training",
            ),
        ),
        RelaxationInfo(
            name="codebook",
            summary="Linear layer whose weights are hashed into a codebook to a free one.",
            target="anarch_monarch.relaxation:CodebookRelaxation",
            references=("Chen, Wilson, Tyree, Weinberger, Chen 2015, Compressing Neural Networks with the Hashing Trick",),
        ),
    ]


@hookimpl
def anarch_models() -> list[ModelInfo]:
    """The models ``monarch-mlp`` and ``hashed-mlp``, to try them on."""
    return [
        ModelInfo(
            name="monarch-mlp",
            summary="Multilayer perceptron whose hidden layers are Monarch matrices.",
            target="anarch_monarch.models:monarch",
            options=MonarchMlpOptions,
        ),
        ModelInfo(
            name="hashed-mlp",
            summary="Multilayer perceptron whose hidden layers are hashed into codebooks.",
            target="anarch_monarch.models:hashed",
            options=HashedMlpOptions,
        ),
    ]
