"""A wrong model is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import nn

from anarch_core.plugin.options import opt
from anarch_core.testing import ModelConformance

Kit = Callable[..., Any]


def _dead_end(input_shape: Any, classes: int, options: Any) -> nn.Module:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, classes))
    model.unused = nn.Parameter(torch.zeros(3))
    return model


def _seeded(input_shape: Any, classes: int, options: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, classes))


def _headless(input_shape: Any, classes: int, options: Any) -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, 10))


def _dense(input_shape: Any, classes: int, options: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


def _resting(input_shape: Any, classes: int, options: Any) -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, classes)).eval()


def _crowded(input_shape: Any, classes: int, options: Any) -> nn.Module:
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    return nn.Sequential(nn.Conv1d(1, 2, 3), norm, nn.Flatten(), nn.Linear(28, classes))


def _abrupt(input_shape: Any, classes: int, options: Any) -> nn.Module:
    conv = {2: nn.Conv1d}[len(input_shape)]
    return nn.Sequential(conv(1, 2, 3), nn.Flatten(), nn.Linear(28, classes))


class _Hidden(nn.Sequential):
    """Holds a number that is in no state dict."""

    def __init__(self, classes: int) -> None:
        super().__init__(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, classes))
        self.scale = torch.rand(()).item()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * super().forward(x)


class _Single(_Hidden):
    """Is its own copy."""

    def __deepcopy__(self, memo: Any) -> _Single:
        return self


def _without_options(input_shape: Any, classes: int) -> None: ...


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (_dead_end, "test_gradients_reach_every_parameter", "no gradient reaches unused; use it in forward"),
        (_seeded, "test_weights_depend_on_the_seed_alone", "do not seed in build"),
        (_dense, "test_has_something_to_relax", "efcn finds no layer to relax; use nn.Conv1d"),
        (_headless, "test_gives_one_row_of_logits_per_input", r"gives \(2, 10\) for two inputs .*, expected a tensor of \(2, 11\)"),
        (_resting, "test_is_fresh", r"the model is in evaluation mode; build\(\) gives a network to be trained"),
        (_crowded, "test_evaluation_is_a_function", "an output depends on the other samples of its batch"),
        (_abrupt, "test_refuses_inputs_that_do_not_fit", "it raised KeyError: 3; raise anarch_core.errors.ConfigError"),
        (lambda shape, classes, options: _Single(classes), "test_can_be_copied", "copy.deepcopy of the model shares memory"),
        (_without_options, "test_target_is_what_its_kind_promises", r"called as target\(input_shape, classes, options\)"),
    ],
)
def test_a_wrong_model(fails: Kit, plugin: Kit, target: Any, check: str, message: str) -> None:
    plugin("model", target)
    fails(ModelConformance, check, message, input_shape=(1, 16))


@attrs.frozen(kw_only=True)
class Choice:
    """Which model."""

    model: str = attrs.field(metadata=opt("Which."))


@attrs.frozen(kw_only=True)
class Size:
    """How large."""

    model: int = attrs.field(metadata=opt("How large."))


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a", "a"], Choice, "the zoo gives a more than once"),
        ([1, 2], Size, "TypeError: 1 is a int, expected a name"),
        (["1", "2"], Size, "the zoo gives '1', which the option 'model' reads as 1; name what it chooses from"),
        (["b", "c"], Choice, "the zoo does not give 'a', the model that `options` of TestWrong names"),
        (None, Choice, "cannot list 'wrong_plugin:names': TypeError"),
    ],
)
def test_a_wrong_zoo(fails: Kit, plugin: Kit, names: Any, options: type, message: str) -> None:
    plugin("model", _dense, options=options, zoo="wrong_plugin:names")
    sys.modules["wrong_plugin"].names = lambda: names  # type: ignore[attr-defined]
    fails(ModelConformance, "test_zoo_names_its_models", message, options={"model": "a"})


def test_a_model_that_is_more_than_its_state(fails: Kit, plugin: Kit, tmp_path: Path) -> None:
    plugin("model", lambda shape, classes, options: _Hidden(classes))
    message = "a saved and loaded network computes something else; hold its state in parameters and buffers"
    fails(ModelConformance, "test_is_rebuilt_from_a_checkpoint", message, tmp_path, input_shape=(1, 16))
