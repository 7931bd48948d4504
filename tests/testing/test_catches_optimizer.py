"""A wrong optimizer is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from anarch_core.testing import OptimizerConformance

Kit = Callable[..., Any]


class Ascent(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad, alpha=0.01)


class Forgetful(torch.optim.SGD):
    """Remembers outside of its state."""

    count = 0

    def step(self, closure: Any = None) -> None:
        self.count += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(parameter.grad, alpha=group["lr"] / self.count)


class Pushing(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(torch.ones_like(parameter) if parameter.grad is None else parameter.grad, alpha=group["lr"])


class Noisy(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(parameter.grad + torch.randn_like(parameter), alpha=group["lr"])


class Halving(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data.half()


def of(cls: type) -> Callable[..., torch.optim.Optimizer]:
    """A target that gives an optimizer of the class."""
    return lambda parameters, lr, options: cls([parameter for _, parameter in parameters], lr=lr)


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (of(Ascent), "test_lowers_a_loss", "check the sign of the step"),
        (of(Ascent), "test_obeys_the_learning_rate", r"weights move at a learning rate of 0; read group\['lr'\] in step"),
        (of(Pushing), "test_skips_parameters_without_gradient", "a parameter whose gradient is None was moved; skip it in step"),
        (of(Noisy), "test_is_a_function_of_its_gradients", "keep random numbers out of step"),
        (of(Forgetful), "test_goes_on_from_its_saved_state", r"keep all memory in self.state\[parameter\]"),
        (
            lambda parameters, lr, options: torch.optim.SGD([parameters[0][1]], lr=lr),
            "test_holds_every_parameter_once",
            "it holds 1 parameters of 4",
        ),
    ],
)
def test_a_wrong_optimizer(fails: Kit, plugin: Kit, target: Any, check: str, message: str) -> None:
    plugin("optimizer", target)
    fails(OptimizerConformance, check, message)


def _momentum(parameters: Any, lr: float, options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([parameter for _, parameter in parameters], lr=lr, momentum=0.5)


@pytest.mark.parametrize(
    ("roles", "check", "message"),
    [
        ({}, "test_its_state_has_roles", "it keeps momentum_buffer for a parameter, and `roles` of its record does not say"),
        (
            {"momentum": "gradient", "momentum_buffer": "gradient"},
            "test_roles_are_those_of_its_state",
            "`roles` names momentum, which it does not keep after 60 steps, but momentum_buffer",
        ),
    ],
)
def test_a_wrong_role(fails: Kit, plugin: Kit, roles: dict[str, str], check: str, message: str) -> None:
    plugin("optimizer", _momentum, roles=roles)
    fails(OptimizerConformance, check, message)
