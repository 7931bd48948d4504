from __future__ import annotations

import pytest
import torch

from anarch_core.errors import OptionError
from anarch_core.plugin import options
from anarch_plugins.optimizers.sgd.optimizer import build
from anarch_plugins.optimizers.sgd.options import SgdOptions


def step_twice(settings: SgdOptions) -> torch.Tensor:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = build([("weight", weight)], 0.1, settings)
    for _ in range(2):
        weight.grad = torch.tensor([3.0, 5.0], dtype=torch.float64)
        optimizer.step()
    return weight.detach()


def test_plain_descent():
    torch.testing.assert_close(step_twice(SgdOptions()), torch.tensor([1 - 0.6, -2 - 1.0], dtype=torch.float64))


def test_momentum_keeps_velocity():
    torch.testing.assert_close(step_twice(SgdOptions(momentum=0.5)), torch.tensor([1 - 0.3 * 2.5, -2 - 0.5 * 2.5], dtype=torch.float64))


def test_nesterov_looks_ahead():
    # steps of 1.5 g and (1 + 0.75) g instead of g and 1.5 g
    expected = torch.tensor([1 - 0.3 * 3.25, -2 - 0.5 * 3.25], dtype=torch.float64)
    torch.testing.assert_close(step_twice(SgdOptions(momentum=0.5, nesterov=True)), expected)


def test_weight_decay_pulls_to_zero():
    first = torch.tensor([1 - 0.1 * (3 + 0.1), -2 - 0.1 * (5 - 0.2)], dtype=torch.float64)
    second = first - 0.1 * (torch.tensor([3.0, 5.0], dtype=torch.float64) + 0.1 * first)
    torch.testing.assert_close(step_twice(SgdOptions(weight_decay=0.1)), second)


@pytest.mark.parametrize("values", [{"nesterov": True}, {"momentum": 1.0}, {"momentum": -0.1}, {"weight_decay": -1.0}])
def test_settings_that_make_no_sense_are_refused(values):
    with pytest.raises(OptionError, match=r"\[sgd\]"):
        options.build(SgdOptions, values, name="sgd")
