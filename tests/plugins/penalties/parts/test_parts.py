"""What the penalty ``parts`` does to a network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.errors import OptionError
from anarch_core.plugin import get_registry
from anarch_core.relaxation import project, relax
from anarch_core.training import Penalties


def network(relaxation: str = "efcn") -> nn.Module:
    torch.manual_seed(0)
    relaxed = relax(nn.Sequential(nn.Conv1d(2, 3, 3, padding=1)).double(), relaxation, example_input=torch.zeros(2, 2, 8).double()).model
    with torch.no_grad():
        for parameter in relaxed.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return relaxed


def descended(model: nn.Module, steps: int, rate: float, **options: object) -> Penalties:
    penalties = Penalties({"parts": get_registry().create("penalty", "parts", options)}, model, steps)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    for step in range(steps):
        optimizer.zero_grad()
        penalties.add_gradients(step)
        optimizer.step()
    return penalties


@pytest.mark.parametrize("relaxation", ["efcn", "lcn"])
def test_a_step_of_descent_shrinks_the_parts_and_leaves_the_rest(relaxation):
    model = network(relaxation)
    layer, before = model[0], [parameter.clone() for parameter in model.parameters()]
    descended(model, 1, 0.1, weight=2.0)
    for (name, after), old in zip(model.named_parameters(), before, strict=True):
        name = name.removeprefix("0.")
        torch.testing.assert_close(layer.keep(after, ("shared",), name), layer.keep(old, ("shared",), name))
        rest = layer.keep(after, ("unshared", "off-local"), name)
        torch.testing.assert_close(rest, layer.keep(old, ("unshared", "off-local"), name) * 0.8)


def test_one_part_may_be_held_alone():
    model = network()
    before = model[0].drift()
    descended(model, 1, 0.1, weight=5.0, of="off-local")
    after = model[0].drift()
    assert after.off_local == pytest.approx(before.off_local / 4)
    assert (after.shared, after.unshared) == pytest.approx((before.shared, before.unshared))


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_held_long_enough_the_network_is_the_one_that_it_is_projected_to(relaxation):
    model = network(relaxation)
    before = project(model)
    descended(model, 200, 0.1 / 8, weight=8.0)  # a weight of `shared` and `tiled` counts as often as it is shared, eight times at most
    x, expected = torch.randn(5, 2, 8, dtype=torch.float64), project(model)
    torch.testing.assert_close(model(x), expected(x), atol=1e-6, rtol=1e-6)
    if relaxation in ("efcn", "lcn"):  # elsewhere what is shared more often moves faster, and the constrained part with it
        torch.testing.assert_close(model(x), before(x), atol=1e-6, rtol=1e-6)


def test_without_weight_there_is_no_term():
    model = network()
    penalties = descended(model, 1, 0.1, weight=3.0, ramp="linear", begins="1ep")
    assert all(parameter.grad is None for parameter in model.parameters())
    row = penalties.end_epoch(0, 1)
    assert row["parts.value"] == row["parts.weight"] == 0.0
    drift = model[0].drift()
    assert row["parts.off_local"] ** 2 * drift.total == pytest.approx(drift.off_local)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": -1.0}, "weight"),
        ({"of": "shared"}, "'both'|both"),
        ({"begins": "soon"}, "soon"),
        ({"ends": "3km"}, "3km"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(OptionError, match=message):
        get_registry().create("penalty", "parts", options)
