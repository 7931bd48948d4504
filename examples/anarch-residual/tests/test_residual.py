"""The relaxation ``residual`` and the optimizer ``residual-sgd``: the eFCN in a better metric."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.relaxation import Site, carry_optimizer_state, drift, project, relax
from anarch_residual.layer import ResidualLayer
from anarch_residual.optimizer import build
from anarch_residual.options import ResidualSgdOptions
from anarch_residual.relaxation import ResidualRelaxation

CONVOLUTIONS = [
    (nn.Conv1d(2, 3, 5, stride=2, padding=2), (2, 12)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2), (4, 7, 6)),
    (nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular", bias=False), (3, 5, 4)),
    (nn.Conv2d(2, 2, 3, padding=1), (2, 1, 1)),
    (nn.Conv3d(2, 2, 2, padding=1, padding_mode="replicate"), (2, 3, 3, 2)),
]
every_convolution = pytest.mark.parametrize(("conv", "shape"), CONVOLUTIONS, ids=str)


def lifted(conv: nn.Module, shape: tuple[int, ...]) -> ResidualLayer:
    return ResidualRelaxation(None).lift(Site(path="conv", module=conv.double(), input_shape=shape, output_shape=()))


def moved(layer: ResidualLayer) -> ResidualLayer:
    """Anywhere in its family."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


@every_convolution
def test_it_equals_the_convolution_and_projects_back_to_it(conv, shape):
    layer = lifted(conv, shape)
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), conv(x), rtol=0, atol=1e-12)
    back = layer.project()
    assert repr(back) == repr(conv)
    for name, parameter in conv.named_parameters():
        torch.testing.assert_close(back.get_parameter(name), parameter, rtol=0, atol=1e-12)


@every_convolution
def test_it_is_the_fully_connected_layer_it_says_it_is(conv, shape):
    layer = moved(lifted(conv, shape))
    x = torch.randn(2, *shape, dtype=torch.float64)
    torch.testing.assert_close(layer(x), layer.lattice()(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(layer(x[0]), layer(x)[0], rtol=0, atol=1e-11)


@every_convolution
def test_the_canonical_splitting_keeps_the_function_and_leaves_no_convolution_in_the_residual(conv, shape):
    layer = moved(lifted(conv, shape))
    x = torch.randn(2, *shape, dtype=torch.float64)
    before, size, nearest = layer(x), layer.residual.weight.norm(), layer.project()
    layer.canonicalise()
    torch.testing.assert_close(layer(x), before, rtol=0, atol=1e-11)
    assert layer.residual.weight.norm() < size
    assert layer.residual.drift().shared <= 1e-20 * layer.residual.drift().total
    # In canonical form the convolution pathway is the projection, up to taps that no output depends on.
    torch.testing.assert_close(layer.shared(x), nearest(x), rtol=0, atol=1e-11)


def test_dropping_the_residual_is_not_the_projection():
    """What the residual holds of a convolution would be lost: the projection is nearer."""
    layer = moved(lifted(*CONVOLUTIONS[0]))
    matrix = layer.lattice().weight
    dropped, projected = (lifted(conv, (2, 12)).lattice().weight for conv in (layer.shared, layer.project()))
    assert (matrix - projected).norm() < (matrix - dropped).norm()


def test_parts_of_the_residual_are_those_of_a_fully_connected_layer_and_the_convolution_is_shared():
    layer = moved(lifted(*CONVOLUTIONS[1]))
    parts = layer.split(layer.residual.weight, "residual.weight")
    torch.testing.assert_close(sum(parts), layer.residual.weight)
    assert min(float(part.norm()) for part in parts) > 0
    assert [float(part.norm()) > 0 for part in layer.split(layer.shared.weight, "shared.weight")] == [True, False, False]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_training_equals_an_efcn_preconditioned_with_its_own_embedding(momentum):
    """Rates (η, sη) for (A, B) are the eFCN's steps with the preconditioner η (s I + ΦΦᵀ): Finzi et al.'s prior is a metric."""
    torch.manual_seed(0)
    eta, scale = 0.02, 0.3
    conv, x = nn.Conv1d(2, 2, 3, stride=2, padding=1).double(), torch.randn(6, 2, 7, dtype=torch.float64)
    target = torch.randn_like(conv(x))
    residual = relax(nn.Sequential(conv), "residual", example_input=x).model
    dense = relax(nn.Sequential(conv), "efcn", example_input=x).model
    options = ResidualSgdOptions(scale=scale, momentum=momentum)
    optimizer = build(list(residual.named_parameters()), eta, options, residual)

    # Φ as a matrix, column by column, weight and bias alike.
    embed = {}
    for name, parameter in conv.named_parameters():
        columns = []
        for index in range(parameter.numel()):
            unit = nn.Conv1d(2, 2, 3, stride=2, padding=1).double()
            for each, value in unit.named_parameters():
                value.data.zero_()
                if each == name:
                    value.data.view(-1)[index] = 1.0
            columns.append(relax(nn.Sequential(unit), "efcn", example_input=x, check=False).model[0].get_parameter(name).detach().flatten())
        embed[name] = torch.stack(columns, 1)
    velocity = {name: torch.zeros_like(parameter) for name, parameter in dense[0].named_parameters()}

    for _ in range(4):
        optimizer.zero_grad()
        (residual(x) - target).square().sum().backward()
        optimizer.step()
        dense.zero_grad()
        (dense(x) - target).square().sum().backward()
        with torch.no_grad():
            for name, parameter in dense[0].named_parameters():
                gradient, phi = parameter.grad.flatten(), embed[name]
                step = eta * (scale * gradient + phi @ (phi.T @ gradient))
                velocity[name] = momentum * velocity[name] + step.view_as(parameter)
                parameter.sub_(velocity[name])
        equal = residual[0].lattice()
        for name, parameter in dense[0].named_parameters():
            torch.testing.assert_close(equal.get_parameter(name), parameter, rtol=0, atol=1e-11)


def test_without_a_rate_of_their_own_the_residuals_stay_zero_and_the_network_a_cnn():
    x = torch.randn(4, 1, 9)
    model = relax(nn.Sequential(nn.Conv1d(1, 3, 3, padding=1), nn.Flatten(), nn.Linear(27, 2)), "residual", example_input=x).model
    optimizer = build(list(model.named_parameters()), 0.1, ResidualSgdOptions(scale=0.0), model)
    model(x).square().sum().backward()
    optimizer.step()
    assert drift(model).total.off_local == drift(model).total.unshared == 0
    assert [type(module).__name__ for module in project(model)] == ["Conv1d", "Flatten", "Linear"]


def test_a_network_without_residuals_has_one_rate():
    model = nn.Sequential(nn.Conv1d(1, 3, 3))
    optimizer = build(list(model.named_parameters()), 0.1, ResidualSgdOptions(), model)
    assert [group.get("lr_scale", 1.0) for group in optimizer.param_groups] == [1.0]


def test_it_lies_inside_of_efcn():
    model = nn.Sequential(nn.Conv1d(1, 4, 5, padding=2)).double()
    x = torch.randn(3, 1, 12, dtype=torch.float64)
    residual = relax(model, "residual", example_input=x).model
    moved(residual[0])
    assert relax(residual, "efcn", example_input=x).report.exact


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_optimizer_state_reaches_both_pathways(optimizer):
    model = nn.Sequential(nn.Conv1d(1, 4, 3, padding=1)).double()
    x = torch.randn(3, 1, 8, dtype=torch.float64)
    settings = {"lr": 0.1, "momentum": 0.9} if optimizer is torch.optim.SGD else {"lr": 0.1}
    source = optimizer(model.parameters(), **settings)
    model(x).square().sum().backward()
    source.step()
    relaxed = relax(model, "residual", example_input=x)
    target = optimizer(relaxed.model.parameters(), **settings)
    assert set(carry_optimizer_state(relaxed, source, target).values()) == {"carried"}
    relaxed.model(x).square().sum().backward()
    target.step()
