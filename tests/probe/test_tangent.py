"""The tangent kernel in parts against Jacobians by torch.func whose rows are projected one by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, jacrev

from anarch_core import relax
from anarch_core.constraint import PARTS
from anarch_core.models import build_model
from anarch_core.probe import ParameterParts, layer_kernels, tangent_kernel_in_parts


def by_jacobian(model: nn.Module, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    """``J P J'`` for each part, in orthonormal coordinates."""
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    model.eval()
    jacobian = jacrev(lambda some: functional_call(model, some, (inputs,)))(parameters)
    model.train()
    parts = ParameterParts.of(model, inputs[:1])
    found = {}
    for part in PARTS:
        rows = [
            parts.project(parts.covariant({name: tensor[n, c] for name, tensor in jacobian.items()}), part)
            for n in range(len(inputs))
            for c in range(next(iter(jacobian.values())).shape[1])
        ]
        flat = torch.stack([torch.cat([tensor.flatten() for tensor in row.values()]) for row in rows]).view(len(inputs), -1)
        found[part] = flat @ flat.T
    return found


def moved(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def assert_equal(found: torch.Tensor, expected: torch.Tensor, scale: torch.Tensor) -> None:
    assert float((found - expected).abs().max()) <= 1e-11 * float(scale.abs().max())


def features(dimensions: int) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    if dimensions == 1:
        first, second = nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), nn.Conv1d(4, 3, 3, dilation=2, padding=1)
        cnn = nn.Sequential(first, nn.BatchNorm1d(4), nn.ReLU(inplace=True), second, nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
    else:
        first, second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, stride=2, padding=1, bias=False)
        cnn = nn.Sequential(first, nn.ReLU(), nn.MaxPool2d(2), second, nn.GroupNorm(2, 2), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 3))
    x = torch.randn(5, *((2, 12) if dimensions == 1 else (1, 8, 8))).double()
    cnn.double()(x)
    return cnn, x


@pytest.mark.parametrize("dimensions", [1, 2])
@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
def test_each_part_is_that_of_the_projected_jacobian(relaxation, dimensions) -> None:
    cnn, x = features(dimensions)
    model = moved(relax(cnn, relaxation, example_input=x[:1]).model)
    found, expected = tangent_kernel_in_parts(model, x), by_jacobian(model, x)
    whole = torch.stack(list(expected.values())).sum(0)
    for part in PARTS:
        assert_equal(found.parts[part], expected[part], whole)
    assert_equal(found.whole, whole, whole)
    assert found.by_rows == (), "no row of the network is made for what is known of its layers"
    for part in PARTS:
        told = sum(layer.get(part, 0.0) for layer in found.layers.values())
        assert told == pytest.approx(float(expected[part].trace()), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "shared", "tiled"])
@pytest.mark.parametrize(("name", "shape", "options"), [("cnn1d", (1, 40), {}), ("vanilla-cnn", (1, 28, 28), {"channels": 2})])
def test_at_the_switch_the_shared_part_is_the_kernel_of_the_cnn(name, shape, options, relaxation) -> None:
    torch.manual_seed(0)
    cnn = build_model(name, input_shape=shape, classes=4, options=options).double()
    x = torch.randn(4, *shape).double()
    before = tangent_kernel_in_parts(cnn, x)
    after = tangent_kernel_in_parts(relax(cnn, relaxation, example_input=x[:1]).model, x)
    assert_equal(after.parts["shared"], before.whole, before.whole)
    assert not before.parts["unshared"].any()
    assert not before.parts["off-local"].any()


def test_layers_that_know_of_no_vmap_are_taken_sample_by_sample(monkeypatch) -> None:
    cnn, x = features(1)
    model = moved(relax(cnn, "tiled", example_input=x[:1]).model)
    expected = tangent_kernel_in_parts(model, x)

    def refused(*arguments: object) -> None:
        raise RuntimeError("no batching rule")

    monkeypatch.setattr(layer_kernels, "vmap", lambda function: refused)
    for part, kernel in tangent_kernel_in_parts(model, x).parts.items():
        torch.testing.assert_close(kernel, expected.parts[part], rtol=1e-11, atol=1e-11)


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(5, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 3),
    groups=st.sampled_from([1, 2]),
    bias=st.booleans(),
    seed=st.integers(0, 100),
)
def test_any_geometry(size, kernel, stride, dilation, padding, groups, bias, seed) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv1d(2, 2, kernel, stride=stride, dilation=dilation, padding=padding, groups=groups, bias=bias).double()
    x = torch.randn(3, 2, size).double()
    head = nn.Linear(conv(x).flatten(1).shape[1], 2).double()
    model = moved(relax(nn.Sequential(conv, nn.Tanh(), nn.Flatten(), head), "efcn", example_input=x[:1]).model)
    found, expected = tangent_kernel_in_parts(model, x).parts, by_jacobian(model, x)
    for part in PARTS:
        assert_equal(found[part], expected[part], torch.stack(list(expected.values())))


@pytest.mark.parametrize("mode", ["circular", "reflect"])
def test_other_padding_goes_by_rows(mode) -> None:
    torch.manual_seed(0)
    cnn = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1, padding_mode=mode), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)).double()
    x = torch.randn(3, 1, 8).double()
    model = moved(relax(cnn, "efcn", example_input=x[:1]).model)
    found, expected = tangent_kernel_in_parts(model, x), by_jacobian(model, x)
    for part in PARTS:
        assert_equal(found.parts[part], expected[part], torch.stack(list(expected.values())))
    assert found.by_rows == ("0",)


def test_layers_over_tokens_and_frozen_parameters() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 4), nn.Flatten(), nn.Linear(20, 2)).double()
    x = torch.randn(4, 5, 3).double()
    expected = by_jacobian(model, x)["shared"]
    found = tangent_kernel_in_parts(model, x)
    assert_equal(found.whole, expected, expected)
    assert found.by_rows == ()
    model[0].weight.requires_grad_(False)
    model[1].requires_grad_(False)
    fewer = tangent_kernel_in_parts(model, x)
    assert "1" not in fewer.layers
    assert float(fewer.whole.trace()) < float(found.whole.trace())
    assert fewer.layers["3"]["shared"] == pytest.approx(found.layers["3"]["shared"], rel=1e-12)
