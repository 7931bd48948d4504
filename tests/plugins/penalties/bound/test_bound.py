"""What the penalty ``bound`` does to a network."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from anarch_core.plugin import get_registry
from anarch_core.relaxation import relax
from anarch_core.training import Penalties


def network(relaxation: str = "efcn", noise: float = 0.1) -> nn.Module:
    torch.manual_seed(0)
    relaxed = relax(nn.Sequential(nn.Conv1d(2, 3, 3, padding=1)).double(), relaxation, example_input=torch.zeros(2, 2, 8).double()).model
    with torch.no_grad():
        for parameter in relaxed.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=noise)
    return relaxed


def penalties(model: nn.Module, steps: int, **options: object) -> Penalties:
    return Penalties({"bound": get_registry().create("penalty", "bound", options)}, model, steps)


def delta(model: nn.Module) -> float:
    drift = model[0].drift()
    return math.sqrt((drift.unshared + drift.off_local) / drift.total)


def test_a_multiplier_rises_by_the_rate_times_what_exceeds_the_bound():
    model = network()
    held = penalties(model, 10, bound=0.1, rate=0.5)
    for step in range(3):
        held.add_gradients(step)
    row = held.end_epoch(3, 3)
    assert row["bound.delta"] == pytest.approx(delta(model))
    assert row["bound.multiplier"] == row["bound.mean_multiplier"] == pytest.approx(3 * 0.5 * (delta(model) - 0.1))
    assert row["bound.bound"] == 0.1


def test_a_bound_that_is_met_costs_nothing():
    model = network(noise=0.0)
    held = penalties(model, 10, bound=0.1)
    held.add_gradients(0)
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.parameters())
    assert held.end_epoch(1, 1)["bound.multiplier"] == 0.0


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_the_gradient_is_at_right_angles_to_the_weight_and_lowers_the_deviation(relaxation):
    model = network(relaxation)
    layer, held = model[0], penalties(model, 10, bound=0.0)
    held.add_gradients(0)
    assert float((layer.weight.detach() * layer.weight.grad).sum()) == pytest.approx(0.0, abs=1e-12)
    before = delta(model)
    with torch.no_grad():
        layer.weight.sub_(layer.weight.grad, alpha=0.1)
    assert delta(model) < before


def test_against_a_loss_that_pulls_away_the_bound_is_held_and_not_more():
    model = network()
    held, optimizer = penalties(model, 400, bound=0.2, rate=0.5), torch.optim.SGD(model.parameters(), lr=0.2)
    target = [parameter.detach().clone() for parameter in network(noise=0.3).parameters()]
    assert delta(network(noise=0.3)) > 0.5
    for step in range(400):
        optimizer.zero_grad()
        sum((a - b).square().sum() / 2 for a, b in zip(model.parameters(), target, strict=True)).backward()
        held.add_gradients(step)
        optimizer.step()
    assert delta(model) == pytest.approx(0.2, abs=0.005)
    assert held.end_epoch(400, 400)["bound.multiplier"] > 0


def test_a_multiplier_falls_where_there_is_room_and_never_below_zero():
    model = network()
    held = penalties(model, 100, bound=0.0, ramp="constant", start=0.9, begins="3it")
    for step in range(3):  # a bound of 0.9 is met
        held.add_gradients(step)
    assert held.end_epoch(3, 3)["bound.multiplier"] == 0.0
    for step in range(3, 6):
        held.add_gradients(step)
    assert held.end_epoch(6, 3)["bound.multiplier"] == pytest.approx(3 * 0.1 * delta(model))


def test_the_deviation_of_the_paper_is_the_off_local_part_alone():
    model = network()
    held = penalties(model, 10, of="off-local")
    drift = model[0].drift()
    assert held.end_epoch(1, 1)["bound.delta"] == pytest.approx(math.sqrt(drift.off_local / drift.total))
