from __future__ import annotations

import copy
import json

import attrs
import pytest
import torch
from torch import nn

from anarch_core import relax
from anarch_core.curvature.risk import HessianOperator, Risk
from anarch_core.data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.probe.base import ProbeContext
from anarch_plugins.probes.hessian.options import HessianOptions
from anarch_plugins.probes.hessian.probe import HessianProbe


@pytest.fixture(scope="module")
def data() -> TensorData:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 1, 10, generator=generator, dtype=torch.float64)
    y = (x[:, 0, 2] > 0).long() + (x[:, 0, 7] > 0).long()
    return TensorData(name="toy", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20], classes=3)


@pytest.fixture(scope="module")
def cnn(data: TensorData) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(30, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x_train), data.y_train).backward()
        optimizer.step()
    return model


@pytest.fixture(scope="module")
def efcn(cnn: nn.Module, data: TensorData) -> nn.Module:
    return relax(cnn, "efcn", example_input=data.x_train[:1]).model


def dense(model: nn.Module, data: TensorData, samples: int) -> torch.Tensor:
    part = data.limited(samples)
    operator = HessianOperator(Risk(model, part.x_train, part.y_train))
    return torch.stack([operator @ unit for unit in torch.eye(operator.size, dtype=torch.float64)], dim=1)


def measure(model: nn.Module, data: TensorData, **options):
    return HessianProbe(HessianOptions(**{"samples": 50, "batch_size": 17, **options})).measure(ProbeContext(model=model, data=data))


def test_default_gives_the_largest_eigenvalue_with_its_certificate(cnn, data) -> None:
    result = measure(cnn, data)
    exact = float(torch.linalg.eigvalsh(dense(cnn, data, 50))[-1])
    assert result.scalars["lambda_max"] == pytest.approx(exact, rel=1e-3)
    assert abs(result.scalars["lambda_max"] - exact) <= result.scalars["lambda_max_residual"]
    assert result.details["lambda_max"]["converged"]
    products = [result.details[name]["products"] for name in ("lambda_max", "lambda_max_shared")]
    assert result.scalars["products"] == sum(products)
    assert max(products) <= 10
    assert result.details["samples"] == 50
    assert result.details["training_samples"] == 60


def test_everything_against_the_dense_hessian(efcn, data) -> None:
    result = measure(
        efcn, data, rtol=1e-5, smallest=True, top_k=4, trace=30, density=2, density_steps=20, gauss_newton=True, layers=True,
        subspaces=("shared", "unshared", "off-local"), eigenvectors=True,
    )  # fmt: skip
    matrix = dense(efcn, data, 50)
    exact = torch.linalg.eigvalsh(matrix)
    scalars = result.scalars
    assert scalars["lambda_max"] == pytest.approx(float(exact[-1]), rel=1e-6)
    assert scalars["lambda_min"] == pytest.approx(float(exact[0]), rel=1e-5)
    torch.testing.assert_close(result.tensors["eigenvalues"], exact.flip(0)[:4], rtol=1e-6, atol=0)
    for vector, value in zip(result.tensors["eigenvectors"], exact.flip(0), strict=False):
        assert float((matrix @ vector - value * vector).norm()) < 1e-3 * float(value)
    assert abs(scalars["trace"] - float(matrix.trace())) <= 5 * scalars["trace_standard_error"]
    assert scalars["lambda_max_gauss_newton"] > 0
    parts = [scalars[f"lambda_max_{part}"] for part in ("shared", "unshared", "off_local")]
    assert all(0 < part <= scalars["lambda_max"] * (1 + 1e-9) for part in parts)
    assert set(result.details["layers"]) == {"0", "4"}
    assert result.tensors["density_weights"].shape == (2, 20)
    json.dumps({"scalars": dict(scalars), "details": dict(result.details)}, allow_nan=False)


def test_a_cnn_and_its_efcn_have_one_shared_curvature(cnn, efcn, data) -> None:
    values = [measure(model, data, rtol=1e-6, subspaces=("shared",)).scalars["lambda_max_shared"] for model in (cnn, efcn)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)


def test_single_precision_has_a_shared_curvature_too(cnn, efcn, data) -> None:
    single = attrs.evolve(data, x_train=data.x_train.float(), x_test=data.x_test.float())
    models = [copy.deepcopy(model).float() for model in (cnn, efcn)]
    values = [measure(model, single, rtol=1e-3).scalars["lambda_max_shared"] for model in models]
    assert values[0] == pytest.approx(values[1], rel=1e-4)


def test_a_network_without_orthonormal_coordinates_is_measured_in_its_own(cnn, data) -> None:
    reflecting = nn.Conv1d(1, 3, 3, padding=1, padding_mode="reflect", dtype=torch.float64)
    result = measure(nn.Sequential(reflecting, *cnn[1:]), data)
    assert result.scalars["lambda_max"] > 0
    assert result.scalars["lambda_max_shared"] is None
    assert "reflect" in result.details["lambda_max_shared"]["not_measured"]


def test_parts_of_the_samples_tell_how_much_their_choice_matters(cnn, data) -> None:
    result = measure(cnn, data, subsets=3)
    parts = result.details["subsets"]
    assert [part["samples"] for part in parts] == [17, 17, 16]
    whole = result.scalars["lambda_max"]
    assert sum(part["samples"] * part["value"] for part in parts) / 50 >= whole * (1 - 1e-3)
    assert result.scalars["products"] > sum(part["products"] for part in parts)


def test_a_network_without_relaxed_layers_has_only_shared_directions(cnn, data) -> None:
    result = measure(cnn, data, subspaces=("off-local",))
    assert result.scalars["lambda_max_off_local"] is None
    assert "no layer is relaxed" in result.details["lambda_max_off_local"]["not_measured"]


def test_an_empty_subspace_is_said_to_be_empty(cnn, data) -> None:
    lcn = relax(cnn, "lcn", example_input=data.x_train[:1]).model
    result = measure(lcn, data, subspaces=("off-local",))
    assert result.scalars["lambda_max_off_local"] is None
    assert "empty" in result.details["lambda_max_off_local"]["not_measured"]


def test_a_diverged_network_gives_none_and_no_error(cnn, data) -> None:
    broken = copy.deepcopy(cnn)
    with torch.no_grad():
        broken[0].weight.fill_(float("nan"))
    result = measure(broken, data)
    assert result.scalars["lambda_max"] is None
    assert result.scalars["lambda_max_shared"] is None
    assert result.scalars["loss"] is None
    json.dumps(dict(result.details), allow_nan=False)


def test_without_data_it_says_what_to_do(cnn) -> None:
    with pytest.raises(ProbeError, match=r"needs data.*--data"):
        HessianProbe(HessianOptions()).measure(ProbeContext(model=cnn))


def test_same_seed_same_numbers_and_the_network_untouched(efcn, data) -> None:
    model = copy.deepcopy(efcn).train()
    state = torch.get_rng_state()
    first, second = (measure(model, data, top_k=2, trace=3, subspaces=("unshared",)) for _ in range(2))
    assert dict(first.scalars) == dict(second.scalars)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    for parameter, before in zip(model.parameters(), efcn.parameters(), strict=True):
        assert torch.equal(parameter, before)
