from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from anarch_core.curvature.risk import GaussNewtonOperator, HessianOperator, Risk
from anarch_core.errors import ProbeError

from .conftest import dense_hessian


def columns(operator) -> torch.Tensor:
    return torch.stack([operator @ unit for unit in torch.eye(operator.size, dtype=operator.dtype)], dim=1)


@pytest.mark.parametrize("batch_size", [30, 13])
def test_hessian_products_are_those_of_the_dense_hessian(case, batch_size: int) -> None:
    operator = HessianOperator(Risk(case.model, case.inputs, case.targets, batch_size=batch_size))
    vectors = torch.randn(3, operator.size, dtype=torch.float64)
    for vector in vectors:
        torch.testing.assert_close(operator @ vector, case.dense @ vector, rtol=1e-12, atol=1e-12)
    assert operator.products == 3


@pytest.mark.parametrize("batch_size", [1, 29, 7])
def test_ragged_batches_weigh_what_their_samples_weigh(case, batch_size: int) -> None:
    vector = torch.randn(len(case.dense), dtype=torch.float64)
    whole = Risk(case.model, case.inputs, case.targets)
    ragged = Risk(case.model, case.inputs, case.targets, batch_size=batch_size)
    assert ragged.value() == pytest.approx(whole.value(), rel=1e-13)
    torch.testing.assert_close(ragged.gradient(), whole.gradient(), rtol=1e-12, atol=1e-14)
    for operator in HessianOperator, GaussNewtonOperator:
        torch.testing.assert_close(operator(ragged) @ vector, operator(whole) @ vector, rtol=1e-11, atol=1e-13)


def test_gauss_newton_matrix_from_the_dense_jacobian(case) -> None:
    risk = Risk(case.model, case.inputs, case.targets)
    model = copy.deepcopy(case.model).eval()
    outputs = model(case.inputs)
    rows = [torch.autograd.grad(output, list(model.parameters()), retain_graph=True) for output in outputs.flatten()]
    jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).unflatten(0, outputs.shape)
    probabilities = outputs.softmax(1).detach()
    curvature = torch.diag_embed(probabilities) - probabilities[:, :, None] * probabilities[:, None, :]
    expected = torch.einsum("ncp,ncd,ndq->pq", jacobian, curvature, jacobian) / len(outputs)
    torch.testing.assert_close(columns(GaussNewtonOperator(risk)), expected, rtol=1e-11, atol=1e-13)


def test_relu_networks_have_the_same_diagonal_in_hessian_and_gauss_newton() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    risk = Risk(model, torch.randn(20, 5, dtype=torch.float64), torch.randint(3, (20,)))
    hessian, gauss_newton = columns(HessianOperator(risk)), columns(GaussNewtonOperator(risk))
    torch.testing.assert_close(hessian.diag(), gauss_newton.diag(), rtol=1e-11, atol=1e-13)
    assert not torch.allclose(hessian, gauss_newton, rtol=1e-3)


def test_layers_that_mix_the_samples_of_a_batch_are_measured_in_one_batch_or_not_at_all() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.ReLU(), nn.Linear(6, 3)).double()
    x, y = torch.randn(20, 4, dtype=torch.float64), torch.randint(3, (20,))
    whole = HessianOperator(Risk(model, x, y, batch_size=20))
    vector = torch.randn(whole.size, dtype=torch.float64)
    torch.testing.assert_close(whole @ vector, dense_hessian(model, x, y) @ vector, rtol=1e-10, atol=1e-12)
    with pytest.raises(ProbeError, match=r"^1: batch norm without running statistics .* at least the number of samples, 20 \(got 19\)"):
        Risk(model, x, y, batch_size=19)


def test_a_choice_of_parameters_gives_their_diagonal_block(case) -> None:
    first = next(iter(dict(case.model.named_parameters())))
    operator = HessianOperator(Risk(case.model, case.inputs, case.targets, parameters=[first]))
    torch.testing.assert_close(columns(operator), case.dense[: operator.size, : operator.size], rtol=1e-11, atol=1e-12)


def test_quadratic_loss_of_a_linear_network_has_a_known_hessian() -> None:
    model = nn.Linear(4, 1, bias=False).double()
    inputs = torch.randn(9, 4, dtype=torch.float64)
    risk = Risk(model, inputs, torch.randn(9, 1, dtype=torch.float64), loss=nn.functional.mse_loss, batch_size=4)
    torch.testing.assert_close(columns(HessianOperator(risk)), 2 * inputs.T @ inputs / 9)
    torch.testing.assert_close(columns(GaussNewtonOperator(risk)), 2 * inputs.T @ inputs / 9)


def test_a_linear_risk_has_no_curvature() -> None:
    model = nn.Linear(4, 1).double()
    risk = Risk(model, torch.randn(5, 4, dtype=torch.float64), torch.zeros(5), loss=lambda outputs, _: outputs.mean())
    assert not (HessianOperator(risk) @ torch.ones(5, dtype=torch.float64)).any()


def test_the_network_stays_bitwise_as_it_was(case) -> None:
    model = copy.deepcopy(case.model).train()
    model[0].eval()
    nn.functional.cross_entropy(model(case.inputs), case.targets).backward()
    before = copy.deepcopy(model)
    gradients = [(parameter.grad, parameter.grad.clone()) for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    random_state = torch.get_rng_state()
    risk = Risk(model, case.inputs, case.targets, batch_size=11)
    with torch.no_grad():
        risk.value()
        risk.gradient()
        for operator in HessianOperator, GaussNewtonOperator:
            operator(risk) @ torch.ones(risk.size, dtype=torch.float64)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [module.training for module in model.modules()] == modes
    for (name, tensor), known in zip(model.state_dict().items(), before.state_dict().values(), strict=True):
        assert torch.equal(tensor, known), name
    for parameter, (gradient, value) in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert torch.equal(gradient, value)


def test_a_network_that_changes_between_products_is_noticed(case) -> None:
    model = copy.deepcopy(case.model)
    operator = HessianOperator(Risk(model, case.inputs, case.targets))
    vector = torch.ones(operator.size, dtype=torch.float64)
    operator @ vector
    with torch.no_grad():
        next(model.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        operator @ vector


def test_works_where_the_caller_switched_gradients_off(case) -> None:
    with torch.no_grad():
        gradient = Risk(case.model, case.inputs, case.targets).gradient()
    assert gradient.any()


def test_names_what_cannot_be_measured() -> None:
    model = nn.Linear(2, 2)
    x, y = torch.randn(3, 2), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ProbeError, match=r"no such trainable parameters: w; the network has weight, bias"):
        Risk(model, x, y, parameters=["w"])
    with pytest.raises(ProbeError, match=r"got 0 samples and 3 targets"):
        Risk(model, x[:0], y)
    with pytest.raises(ProbeError, match=r"bfloat16 on cpu.*\.float\(\)"):
        Risk(copy.deepcopy(model).bfloat16(), x, y)
    with pytest.raises(ProbeError, match="require a gradient"):
        Risk(model.requires_grad_(False), x, y)
