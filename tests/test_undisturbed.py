from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.network import undisturbed


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[0].eval()
    model(torch.randn(8, 3)).sum().backward()
    return model


def train_and_fail(model: nn.Module) -> None:
    with undisturbed(model):
        model.train()
        model(torch.randn(8, 3)).sum().backward()
        msg = "on purpose"
        raise RuntimeError(msg)


def test_every_trace_is_undone_even_after_an_error(model) -> None:
    modes = [module.training for module in model.modules()]
    gradients = [(parameter.grad, parameter.grad.clone()) for parameter in model.parameters()]
    buffers = [buffer.clone() for buffer in model.buffers()]
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="on purpose"):
        train_and_fail(model)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    for parameter, (gradient, value) in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert torch.equal(gradient, value)
    for buffer, value in zip(model.buffers(), buffers, strict=True):
        assert torch.equal(buffer, value)


def test_inside_the_network_is_evaluated_in_full_precision_with_gradients(model) -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), undisturbed(model):
            assert not any(module.training for module in model.modules())
            output = model(torch.randn(2, 3))
            assert output.dtype == torch.float32
            assert torch.get_float32_matmul_precision() == "highest"
            (gradient,) = torch.autograd.grad(output.sum(), model[0].weight)
            assert gradient.shape == (4, 3)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_may_be_nested(model) -> None:
    model.train()
    with undisturbed(model):
        with undisturbed(model):
            assert not model.training
        assert not model.training
    assert model.training


def test_hooks_that_run_after_gradients_are_taken_away(model) -> None:
    with undisturbed(model):
        model[0].weight.register_post_accumulate_grad_hook(lambda parameter: parameter.grad.zero_())
    model(torch.randn(2, 3)).sum().backward()
    assert model[0].weight.grad.any()
