"""A wrong penalty is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch

from anarch_core.layers import RelaxedLayer
from anarch_core.testing import PenaltyConformance
from anarch_core.training import AbstractPenalty, PartSquare, Progress, Term

Kit = Callable[..., Any]


class Right(AbstractPenalty):
    factor = 0.5

    def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
        for path, layer in layers.items():
            square = PartSquare.of(layer, ("off-local",), path)
            yield Term(path, sum(square.squares.values()) * self.factor, square.gradients)


class Halved(Right):
    factor = 0.25


class Idle(AbstractPenalty):
    def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
        return iter(())


class Writing(Right):
    def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
        for layer in layers.values():
            for parameter in layer.parameters():
                parameter.mul_(0.9)
        yield from super().terms(layers, progress)


class Random(Right):
    def scalars(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Mapping[str, float]:
        return {"number": float(torch.rand(()))}


class Forgetful(Right):
    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.count = 0

    def terms(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Iterator[Term]:
        self.count += 1
        for term in super().terms(layers, progress):
            yield Term(term.layer, term.value * self.count, {name: tensor * self.count for name, tensor in term.gradients.items()})


class Saving(Forgetful):
    def state(self) -> dict[str, torch.Tensor]:
        return {"count": torch.tensor(self.count)}


class Endless(Right):
    def scalars(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Mapping[str, float]:
        return {"number": float("inf")}


class Changing(Right):
    def scalars(self, layers: Mapping[str, RelaxedLayer], progress: Progress) -> Mapping[str, float]:
        return {f"number_{progress.iteration}": 1.0}


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (Halved, "test_gradients_are_of_the_value", "its gradients say"),
        (Idle, "test_adds_a_term", "adds nothing to any gradient"),
        (Writing, "test_leaves_the_network_and_the_random_state_alone", "it changes parameter 0.weight"),
        (Random, "test_leaves_the_network_and_the_random_state_alone", "random"),
        (Forgetful, "test_goes_on_from_its_saved_state", "give all that it remembers"),
        (Saving, "test_goes_on_from_its_saved_state", r"gives a state\(\) and has no load_state\(\)"),
        (Endless, "test_history_is_of_numbers", "not finite"),
        (Changing, "test_history_is_of_numbers", "different columns"),
    ],
)
def test_a_wrong_penalty(fails: Kit, plugin: Kit, target: type, check: str, message: str) -> None:
    plugin("penalty", target)
    fails(PenaltyConformance, check, message)


def test_a_right_one(passes: Kit, plugin: Kit) -> None:
    plugin("penalty", Right)
    for check in ("test_adds_a_term", "test_gradients_are_of_the_value", "test_goes_on_from_its_saved_state"):
        passes(PenaltyConformance, check)
