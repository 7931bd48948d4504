from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad
from torch.nn.utils import prune

from anarch_core import relax
from anarch_core.constraint.parts import PARTS
from anarch_core.curvature.operators import ProjectedOperator, ScaledOperator
from anarch_core.curvature.risk import HessianOperator, Risk
from anarch_core.errors import ProbeError
from anarch_core.probe.coordinates import ParameterParts


@pytest.fixture
def network() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    features = [nn.Conv1d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(2, 2, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*features, nn.Flatten(), nn.Linear(10, 3)).double()
    return model, torch.randn(20, 1, 10, dtype=torch.float64), torch.randint(3, (20,))


def lift_matrix(cnn: nn.Module, example: torch.Tensor, relaxation: str) -> torch.Tensor:
    """Φ column by column, from lifts of networks that have one weight equal to 1."""
    columns = []
    parameters = list(cnn.parameters())
    kept = [parameter.detach().clone() for parameter in parameters]
    with torch.no_grad():
        for parameter in parameters:
            for index in range(parameter.numel()):
                for other in parameters:
                    other.zero_()
                parameter.view(-1)[index] = 1
                lifted = relax(cnn, relaxation, example_input=example, check=False).model
                columns.append(torch.cat([p.detach().flatten() for p in lifted.parameters()]))
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    return torch.stack(columns, dim=1)


def dense(operator) -> torch.Tensor:
    return torch.stack([operator @ unit for unit in torch.eye(operator.size, dtype=operator.dtype)], dim=1)


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "tiled", "shared"])
def test_the_hessian_of_a_cnn_is_that_of_its_relaxation_on_the_range_of_the_lift(network, relaxation: str) -> None:
    cnn, x, y = network
    relaxed = relax(cnn, relaxation, example_input=x[:1]).model
    phi = lift_matrix(cnn, x[:1], relaxation)
    big, small = dense(HessianOperator(Risk(relaxed, x, y))), dense(HessianOperator(Risk(cnn, x, y)))
    torch.testing.assert_close(phi.T @ big @ phi, small, rtol=1e-10, atol=1e-13)


LEFT = [
    *(([name], ["*"]) for name in ("efcn", "lcn", "tiled", "shared", "ungroup", "grow", "unmask")),
    *(([name], ["2"]) for name in ("efcn", "ungroup", "grow")),
    (["ungroup", "lcn"], ["*"]),
    (["grow", "efcn"], ["2"]),
    (["ungroup", "grow"], ["2"]),
]
"""Relaxations one after another, and the layers: all convolutions, or the second alone."""


@pytest.mark.parametrize(("relaxations", "layers"), LEFT)
def test_orthonormal_shared_curvature_is_the_same_before_and_after_the_switch(relaxations: list[str], layers: list[str]) -> None:
    torch.manual_seed(0)
    features = [nn.Conv1d(1, 2, 3, stride=2, padding=1), nn.Tanh(), nn.Conv1d(2, 2, 3, padding=1, groups=2), nn.Tanh()]
    cnn = nn.Sequential(*features, nn.Flatten(), nn.Linear(10, 3)).double()
    x, y = torch.randn(20, 1, 10, dtype=torch.float64), torch.randint(3, (20,))
    if relaxations == ["unmask"]:
        prune.random_unstructured(cnn[2], "weight", 0.5)
    relaxed = cnn
    for relaxation in relaxations:
        relaxed = relax(relaxed, relaxation, example_input=x[:1], layers=layers).model

    def shared_spectrum(model: nn.Module) -> torch.Tensor:
        risk = Risk(model, x, y)
        parts = ParameterParts.of(model, x[:1])
        assert not parts.incomparable

        def flat(tensors) -> torch.Tensor:
            return torch.cat([tensors[name].flatten() for name in risk.names])

        ones = {name: torch.ones_like(parameter) for name, parameter in model.named_parameters()}
        scaled = ScaledOperator(HessianOperator(risk), flat(parts.covariant(ones)).detach())
        matrix = dense(ProjectedOperator(scaled, lambda vector: flat(parts.project(risk.named_views(vector), "shared"))))
        torch.testing.assert_close(matrix, matrix.T, rtol=1e-10, atol=1e-13)
        return torch.linalg.eigvalsh(matrix)

    before, after = shared_spectrum(cnn), shared_spectrum(relaxed)
    padded = torch.cat([before, torch.zeros(len(after) - len(before), dtype=torch.float64)]).sort().values
    torch.testing.assert_close(after, padded, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "tiled", "shared"])
def test_parts_are_orthogonal_projections_that_add_up(network, relaxation: str) -> None:
    cnn, x, _ = network
    relaxed = relax(cnn, relaxation, example_input=x[:1]).model
    parts = ParameterParts.of(relaxed, x[:1])
    vector = {name: torch.randn_like(parameter) for name, parameter in relaxed.named_parameters()}
    projected = {part: parts.project(vector, part) for part in PARTS}
    for name in vector:
        torch.testing.assert_close(sum(projected[part][name] for part in PARTS), vector[name])
    for one in PARTS:
        for other in PARTS:
            again = parts.project(projected[one], other)
            for name in vector:
                torch.testing.assert_close(again[name], projected[one][name] * (one == other), atol=1e-12, rtol=1e-9)


def test_the_gradient_of_a_cnn_is_the_shared_part_of_its_relaxations(network) -> None:
    cnn, x, y = network
    norms = []
    for model in (cnn, relax(cnn, "efcn", example_input=x[:1]).model, relax(cnn, "tiled", example_input=x[:1]).model):
        risk = Risk(model, x, y)
        parts = ParameterParts.of(model, x[:1])
        shared = parts.project(parts.covariant(risk.named_views(risk.gradient())), "shared")
        norms.append(float(torch.cat([tensor.flatten() for tensor in shared.values()]).norm()))
    assert norms[1] == pytest.approx(norms[0], rel=1e-12)
    assert norms[2] == pytest.approx(norms[0], rel=1e-12)


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "tiled", "shared"])
def test_double_backward_through_every_relaxed_layer(network, relaxation: str) -> None:
    cnn, x, y = network
    relaxed = relax(cnn, relaxation, example_input=x[:1]).model
    names, sizes, shapes = zip(*((name, p.numel(), p.shape) for name, p in relaxed.named_parameters()), strict=True)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        values = {name: part.view(shape) for name, part, shape in zip(names, flat.split(sizes), shapes, strict=True)}
        return nn.functional.cross_entropy(functional_call(relaxed, values, (x,)), y)

    flat = torch.cat([parameter.detach().flatten() for parameter in relaxed.parameters()])
    vector = torch.randn_like(flat)
    step = 1e-6
    difference = (grad(loss)(flat + step * vector) - grad(loss)(flat - step * vector)) / (2 * step)
    product = HessianOperator(Risk(relaxed, x, y)) @ vector
    torch.testing.assert_close(product, difference, rtol=1e-5, atol=1e-8)


def test_padding_that_folds_several_weights_onto_one_pixel_has_no_orthonormal_scale() -> None:
    model = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, padding_mode="reflect"))
    with pytest.raises(ProbeError, match=r"0 have no orthonormal scale.*'reflect'"):
        ParameterParts.of(model, torch.zeros(1, 1, 8))
