from __future__ import annotations

import pytest
import torch

from anarch_core.errors import OptionError
from anarch_core.plugin import options
from anarch_plugins.optimizers.adam.optimizer import build_adam, build_adamw
from anarch_plugins.optimizers.adam.options import AdamOptions, AdamWOptions


def first_step(build, settings):
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = build([("weight", weight)], 0.1, settings)
    weight.grad = torch.tensor([3.0, -5.0], dtype=torch.float64)
    optimizer.step()
    return weight.detach()


def test_the_first_step_has_the_length_of_the_learning_rate():
    torch.testing.assert_close(first_step(build_adam, AdamOptions()), torch.tensor([0.9, -1.9], dtype=torch.float64))


def test_adamw_shrinks_the_weights_apart_from_the_gradient():
    found = first_step(build_adamw, AdamWOptions(weight_decay=0.5))
    torch.testing.assert_close(found, torch.tensor([0.95 - 0.1, -1.9 + 0.1], dtype=torch.float64))


def test_weight_decay_is_off_in_adam_and_on_in_adamw():
    assert AdamOptions().weight_decay == 0
    assert AdamWOptions().weight_decay == 0.01


@pytest.mark.parametrize("cls", [AdamOptions, AdamWOptions])
@pytest.mark.parametrize("values", [{"betas": [0.9]}, {"betas": [0.9, 1.0]}, {"eps": 0}, {"weight_decay": -1}])
def test_settings_that_make_no_sense_are_refused(cls, values):
    with pytest.raises(OptionError, match=r"\[adam\]"):
        options.build(cls, values, name="adam")
