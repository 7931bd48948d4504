"""Untying: weights that are used several times become weights of their own."""

from __future__ import annotations

from collections.abc import Iterable

from anarch_core.plugin import RelaxationInfo, hookimpl


@hookimpl
def anarch_relaxations() -> Iterable[RelaxationInfo]:
    """The relaxation ``untie``."""
    return [
        RelaxationInfo(
            name="untie",
            summary="A copy for each call of a module that is called several times, and for each place of a tied weight.",
            target="anarch_plugins.relaxations.untie.relaxation:Untying",
            references=(
                "Lan et al. 2020, ALBERT, https://arxiv.org/abs/1909.11942",
                "Dehghani et al. 2019, Universal Transformers, https://arxiv.org/abs/1807.03819",
            ),
        )
    ]
