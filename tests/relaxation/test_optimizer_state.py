"""Momentum and Adam's moments over the switch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.relaxation.optimizer_state import carry_optimizer_state, owner
from anarch_core.relaxation.verbs import relax


def trained(optimizer_class, **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2)).double()
    x, y = torch.randn(8, 2, 6, dtype=torch.float64), torch.randint(0, 2, (8,))
    optimizer = optimizer_class(model.parameters(), lr=0.1, **options)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, optimizer, x


@pytest.mark.parametrize("name", ["efcn", "lcn", "shared", "tiled"])
def test_momentum_is_divided_among_the_copies_so_that_the_shared_direction_keeps_it(name):
    """Φᵀ m_W = m_w: measured through the projection, Φ⁺ m_W = m_w / n."""
    model, source, x = trained(torch.optim.SGD, momentum=0.9)
    relaxed = relax(model, name, example_input=x)
    target = torch.optim.SGD(relaxed.model.parameters(), lr=0.1, momentum=0.9)
    fate = carry_optimizer_state(relaxed, source, target)
    assert set(fate.values()) == {"carried"}
    layer, old = relaxed.model[0], source.state[model[0].weight]["momentum_buffer"]
    # The pairing of a gradient-like state with any lifted direction is the one it had: <m_W, Φ v> = <m_w, v>.
    direction = torch.randn_like(old)
    bias_direction = torch.randn_like(model[0].bias)
    with torch.no_grad():
        model[0].weight.copy_(direction)
        model[0].bias.copy_(bias_direction)
    lifted = relax(model, name, example_input=x, check=False).model[0]
    old_bias = source.state[model[0].bias]["momentum_buffer"]
    for parameter, expected in [("weight", (old * direction).sum()), ("bias", (old_bias * bias_direction).sum())]:
        moved = target.state[layer.get_parameter(parameter)]["momentum_buffer"]
        assert moved.shape == layer.get_parameter(parameter).shape
        assert float((moved * lifted.get_parameter(parameter).detach()).sum()) == pytest.approx(float(expected), rel=1e-9)
    head = target.state[relaxed.model[3].weight]["momentum_buffer"]
    assert torch.equal(head, source.state[model[3].weight]["momentum_buffer"])


@pytest.mark.parametrize("fused", [False, True])
def test_momentum_that_some_weights_have_and_others_have_not_is_stepped_fused_too(fused):
    """PyTorch's fused SGD takes momenta of all weights or of none."""
    model, source, x = trained(torch.optim.SGD, momentum=0.9, fused=fused)
    relaxed = relax(model, "efcn", example_input=x)
    target = torch.optim.SGD(relaxed.model.parameters(), lr=0.1, momentum=0.9, fused=fused)
    fate = carry_optimizer_state(relaxed, source, target, roles={})
    assert fate == {"0.weight": "reset", "0.bias": "reset", "3.weight": "carried", "3.bias": "carried"}
    before = {name: parameter.detach().clone() for name, parameter in relaxed.model.named_parameters()}
    moments = {name: source.state[parameter]["momentum_buffer"] for name, parameter in model.named_parameters() if name[0] == "3"}
    relaxed.model(x).square().sum().backward()
    target.step()
    for name, parameter in relaxed.model.named_parameters():
        velocity = parameter.grad + (0.9 * moments[name] if name in moments else 0)
        torch.testing.assert_close(parameter.detach(), before[name] - 0.1 * velocity, rtol=1e-12, atol=1e-14)


def test_adams_second_moment_of_new_weights_starts_at_the_layer_mean_not_at_zero():
    model, source, x = trained(torch.optim.Adam)
    relaxed = relax(model, "efcn", example_input=x)
    target = torch.optim.Adam(relaxed.model.parameters(), lr=0.1)
    assert set(carry_optimizer_state(relaxed, source, target).values()) == {"carried"}
    state = target.state[relaxed.model[0].weight]
    assert float(state["exp_avg_sq"].min()) > 0
    assert float(state["step"]) == 3
    target.zero_grad()
    relaxed.model(x).sum().backward()
    target.step()


def test_a_fresh_optimizer_has_nothing_to_carry():
    model, _, x = trained(torch.optim.SGD)
    relaxed = relax(model, "efcn", example_input=x)
    source = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    target = torch.optim.SGD(relaxed.model.parameters(), lr=0.1, momentum=0.9)
    assert set(carry_optimizer_state(relaxed, source, target).values()) == {"empty"}


class Averaging(torch.optim.SGD):
    """Plain descent that keeps the running average of the weights."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                average = self.state[parameter].setdefault("average", parameter.clone())
                average.lerp_(parameter, 0.1)


@pytest.mark.parametrize("name", ["efcn", "lcn", "shared", "tiled"])
def test_an_average_of_the_weights_becomes_the_lift_of_the_average(name):
    model, source, x = trained(Averaging)
    relaxed = relax(model, name, example_input=x)
    target = Averaging(relaxed.model.parameters(), lr=0.1)
    assert set(carry_optimizer_state(relaxed, source, target, roles={"average": "weight"}).values()) == {"carried"}
    averages = [source.state[parameter]["average"] for parameter in model.parameters()]
    with torch.no_grad():
        for parameter, average in zip(model.parameters(), averages, strict=True):
            assert not torch.equal(parameter, average)
            parameter.copy_(average)
    lifted = relax(model, name, example_input=x)
    for parameter, expected in zip(relaxed.model.parameters(), lifted.model.parameters(), strict=True):
        assert torch.equal(target.state[parameter]["average"], expected)


def test_a_tensor_without_a_role_resets_the_layer_that_is_relaxed_and_no_other():
    model, source, x = trained(Averaging)
    relaxed = relax(model, "efcn", example_input=x)
    target = Averaging(relaxed.model.parameters(), lr=0.1)
    fate = carry_optimizer_state(relaxed, source, target)
    assert fate == {"0.weight": "reset", "0.bias": "reset", "3.weight": "carried", "3.bias": "carried"}


def test_state_of_another_shape_than_the_parameter_is_reset():
    """Adafactor's second moment is a row and a column: nothing that the relaxed weight could use."""
    model, source, x = trained(torch.optim.Adafactor)
    relaxed = relax(model, "efcn", example_input=x)
    target = torch.optim.Adafactor(relaxed.model.parameters(), lr=0.1)
    assert carry_optimizer_state(relaxed, source, target)["0.weight"] == "reset"
    relaxed.model(x).sum().backward()
    target.step()


def test_rmsprops_momentum_sums_steps_and_moves_like_the_weights_and_its_averages_like_gradients_and_their_squares():
    model, source, x = trained(torch.optim.RMSprop, momentum=0.9, centered=True)
    relaxed = relax(model, "efcn", example_input=x)
    target = torch.optim.RMSprop(relaxed.model.parameters(), lr=0.1, momentum=0.9, centered=True)
    assert set(carry_optimizer_state(relaxed, source, target).values()) == {"carried"}
    old, new = source.state[model[0].weight], target.state[relaxed.model[0].weight]
    assert float(new["square_avg"].min()) > 0
    assert float(new["grad_avg"].sum()) == pytest.approx(float(old["grad_avg"].sum()))
    with torch.no_grad():
        for parameter in model[0].parameters():
            parameter.copy_(source.state[parameter]["momentum_buffer"])
    lifted = relax(model, "efcn", example_input=x, check=False).model[0]
    for name, parameter in relaxed.model[0].named_parameters():
        assert torch.equal(target.state[parameter]["momentum_buffer"], lifted.get_parameter(name))


def test_adagrads_sum_of_squares_is_one_for_weights_that_were_held_at_zero_too():
    model, source, x = trained(torch.optim.Adagrad)
    relaxed = relax(model, "efcn", example_input=x)
    target = torch.optim.Adagrad(relaxed.model.parameters(), lr=0.1)
    assert set(carry_optimizer_state(relaxed, source, target).values()) == {"carried"}
    assert float(target.state[relaxed.model[0].weight]["sum"].min()) > 0


def test_parameters_within_a_relaxed_layer_are_the_layers():
    assert owner("0.values.weight", ["1", "0"]) == owner("0.weight", ["0"]) == "0"
    assert owner("01.weight", ["0"]) is None
    assert owner("weight", [""]) == ""
