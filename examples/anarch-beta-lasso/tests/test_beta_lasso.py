"""The optimizer ``beta-lasso``: its formula, who it applies to, and what follows from a threshold that the rate does not scale."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_beta_lasso.optimizer import BetaLasso, build
from anarch_beta_lasso.options import BetaLassoOptions
from anarch_core.relaxation import drift, relax


def one(value: float, gradient: float, *, lr: float = 0.1, beta: float = 50.0, penalty: float = 2e-5, threshold: str = "hard") -> float:
    """A weight after one step."""
    weight = nn.Parameter(torch.tensor([value], dtype=torch.float64))
    weight.grad = torch.tensor([gradient], dtype=torch.float64)
    BetaLasso([{"params": [weight], "penalty": penalty}], lr, beta, threshold).step()
    return weight.item()


def network() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A relaxed CNN with something for it to learn."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(40, 3))
    x, y = torch.randn(30, 1, 10), torch.randint(3, (30,))
    return relax(model, "efcn", example_input=x).model, x, y


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, options: BetaLassoOptions, steps: int = 20) -> None:
    optimizer = build(list(model.named_parameters()), 0.1, options, model)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_the_hard_step_is_penalised_descent_and_then_a_threshold():
    assert one(0.5, 0.2) == pytest.approx(0.5 - 0.1 * (0.2 + 2e-5), rel=1e-15)
    assert one(-0.5, 0.2) == pytest.approx(-0.5 - 0.1 * (0.2 - 2e-5), rel=1e-15)
    assert one(1.1e-3, 0.0) != 0
    assert one(0.9e-3, 0.0) == 0
    assert one(0.9e-3, 0.0, beta=0.0) == pytest.approx(0.9e-3 - 2e-6)


def test_the_soft_step_is_the_proximal_step_of_the_penalty():
    assert one(0.5, 0.2, threshold="soft") == pytest.approx(0.5 - 0.1 * 0.2 - 0.1 * 2e-5, rel=1e-15)
    assert one(1e-6, 0.0, threshold="soft") == 0
    assert one(3e-6, 0.0, threshold="soft") == pytest.approx(1e-6)


def test_a_zero_returns_only_by_one_strong_step():
    """Dead zone βλ = 1e-3: |∇L| ≥ 1e-2 at η = 0.1. Weak pulls do not add up, however long they last."""
    assert one(0.0, 0.0101) != 0
    assert one(0.0, 0.0099) == 0
    weight = 0.0
    for _ in range(100):
        weight = one(weight, 0.0099)
    assert weight == 0


def test_a_decaying_rate_makes_zeros_absorbing_unless_the_threshold_is_soft():
    assert [one(0.0, 0.5, lr=lr) != 0 for lr in (0.1, 0.01, 0.001)] == [True, True, False]
    assert [one(0.0, 0.5, lr=lr, threshold="soft") != 0 for lr in (0.1, 0.01, 0.001)] == [True, True, True]


def test_only_weights_of_relaxed_layers_are_held():
    model, _, _ = network()
    groups = build(list(model.named_parameters()), 0.1, BetaLassoOptions(), model).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert [(group["penalty"], sorted(names[id(p)] for p in group["params"])) for group in groups] == [
        (0.0, ["0.bias", "1.bias", "1.weight", "4.bias", "4.weight"]),
        (2e-5, ["0.weight"]),
    ]


def test_a_cnn_is_trained_by_plain_sgd():
    x, y = torch.randn(20, 1, 6), torch.randint(2, (20,))
    models = []
    for make in (lambda m: build(list(m.named_parameters()), 0.1, BetaLassoOptions(), m), lambda m: torch.optim.SGD(m.parameters(), 0.1)):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
        optimizer = make(model)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        models.append(model.state_dict())
    for name, weight in models[0].items():
        assert torch.equal(weight, models[1][name])


def test_an_efcn_stays_in_the_subspace_unless_pulled_strongly():
    """The off-local weights start in the dead zone. The pull on them here is below 0.1 or so in one step of η = 0.1."""
    free, held, pulled = network(), network(), network()
    train(*free, BetaLassoOptions(penalty=0.0))
    train(*held, BetaLassoOptions(beta=500.0, penalty=2e-4))
    train(*pulled, BetaLassoOptions(beta=20.0))
    off_local = [drift(model).total.off_local for model, _, _ in (free, held, pulled)]
    assert off_local[1] == 0.0 < off_local[2] <= off_local[0]


def test_a_network_that_has_left_is_tightened_again():
    model, _, _ = network()
    with torch.no_grad():
        model[0].weight.add_(5e-3 * torch.randn_like(model[0].weight))
    before = drift(model).total
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = build(list(model.named_parameters()), 0.1, BetaLassoOptions(beta=200.0, penalty=1e-4), model)
    for _ in range(10):
        optimizer.step()
    after = drift(model).total
    assert before.off_local > 0 == after.off_local
    assert after.shared == pytest.approx(before.shared, rel=0.05)
