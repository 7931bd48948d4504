"""Masked weights become dense ones that begin at zero, and go back to the mask."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from anarch_core import drift, load, project, relax, save
from anarch_core.errors import SurgeryError
from anarch_core.models import build_model
from anarch_core.relaxation import carry_optimizer_state, plan
from anarch_plugins.models.vit.attention import GroupedQueryAttention


class Multiplied(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.kept


class Masked(nn.Conv2d):
    """As in PixelCNN: the mask is multiplied in by the forward pass."""

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__(2, 3, 3, padding=1)
        self.register_buffer("mask", mask)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(x, self.weight * self.mask, self.bias, padding=1)


def pruned(**options: object) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return build_model("pruned-mlp", input_shape=(1, 12), classes=3, options={"hidden": (8, 6), **options}), torch.randn(5, 1, 12)


def half(shape: tuple[int, ...]) -> torch.Tensor:
    return (torch.arange(torch.Size(shape).numel()) % 2).view(shape)


def test_projection_and_drift_against_least_squares() -> None:
    parent, x = pruned()
    parent, x = parent.double(), x.double()
    model = relax(parent, "unmask", example_input=x).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    back = project(model)
    for name in ("linear1", "linear2", "linear3"):
        mask, weight = parent.get_submodule(name).weight_mask.flatten(), model.get_submodule(name).weight.detach().flatten()
        incidence = torch.diag(mask)[:, mask.bool()]
        theta = torch.linalg.lstsq(incidence, weight[:, None]).solution[:, 0]
        found = back.get_submodule(name)
        torch.testing.assert_close(found.weight_orig.flatten()[mask.bool()], theta, rtol=0, atol=1e-10)
        torch.testing.assert_close(found.weight.flatten(), incidence @ theta, rtol=0, atol=1e-10)
        original = parent.get_submodule(name).weight_orig.flatten()[~mask.bool()]
        assert torch.equal(found.weight_orig.flatten()[~mask.bool()], original)
        parts, rest = drift(model).layers[name], weight - incidence @ theta
        expected = (float((incidence @ theta).square().sum()), 0.0, float(rest.square().sum()))
        assert (parts.shared, parts.unshared, parts.off_local) == pytest.approx(expected, rel=1e-12)


def test_at_random_weights_the_drift_is_the_fraction_that_was_pruned() -> None:
    model = relax(*(pruned(hidden=(300, 100))[:1]), "unmask", example_input=torch.zeros(1, 1, 12)).model
    for name in ("linear1", "linear2", "linear3"):
        layer = model.get_submodule(name)
        layer.reset_parameters()
        parts, amount = layer.drift(), 0.45 if name == "linear3" else 0.9
        assert parts.off_local / (parts.shared + parts.off_local) == pytest.approx(amount, abs=0.05)
        assert parts.initial[2] / sum(parts.initial) == pytest.approx(amount, abs=0.01)
        assert sum(parts.initial) == pytest.approx(parts.shared + parts.off_local, rel=0.15)


def test_what_was_trained_and_went_back_is_pruned_as_before() -> None:
    parent, x = pruned()
    parent(x).sum().backward()
    model = relax(parent, "unmask", example_input=x).model
    back = project(model)
    for name in ("linear1", "linear2", "linear3"):
        old, new = parent.get_submodule(name), back.get_submodule(name)
        assert prune.is_pruned(new)
        assert not prune.is_pruned(model.get_submodule(name).free)
        assert all(torch.equal(new.state_dict()[key], value) for key, value in old.state_dict().items())
        assert isinstance(prune.remove(new, "weight").weight, nn.Parameter)


def test_checkpoints_of_pruned_and_of_dense_networks(tmp_path) -> None:
    parent, x = pruned()
    model = relax(parent, "unmask", example_input=x).model
    with torch.no_grad():
        model.linear1.weight.add_(1)
    other, _ = pruned(mask="random")
    save(model, tmp_path / "dense.safetensors")
    save(project(model), tmp_path / "pruned.safetensors")
    dense, back = (load(tmp_path / f"{name}.safetensors", model=other) for name in ("dense", "pruned"))
    assert torch.equal(dense(x), model(x))
    assert torch.equal(back(x), project(model)(x))
    assert torch.equal(back.linear1.weight_mask, parent.linear1.weight_mask)


def test_momentum_is_carried() -> None:
    parent, x = pruned()
    optimizer = torch.optim.SGD(parent.parameters(), lr=0.1, momentum=0.9)
    parent(x).square().sum().backward()
    optimizer.step()
    relaxed = relax(parent, "unmask", example_input=x)
    fresh = torch.optim.SGD(relaxed.model.parameters(), lr=0.1, momentum=0.9)
    carry_optimizer_state(relaxed, optimizer, fresh)
    moved = fresh.state[relaxed.model.linear1.free.weight]["momentum_buffer"]
    expected = optimizer.state[parent.linear1.weight_orig]["momentum_buffer"] * parent.linear1.weight_mask
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool, torch.int64])
def test_masks_that_a_module_holds(dtype) -> None:
    layer = Masked(half((3, 2, 3, 3)).to(dtype))
    network, x = nn.Sequential(layer, nn.ReLU()), torch.randn(2, 2, 5, 5)
    relaxed = relax(network, "unmask", example_input=x)
    assert relaxed.report.exact
    with torch.no_grad():
        relaxed.model[0].free.weight.add_(1)
    torch.testing.assert_close(relaxed.model(x), nn.functional.conv2d(x, relaxed.model[0].free.weight, layer.bias, padding=1).relu())
    back = project(relaxed.model)[0]
    assert torch.equal(back.mask, layer.mask)
    assert back.mask.dtype == dtype
    torch.testing.assert_close(back.weight, layer.weight + layer.mask)


def test_masks_by_parametrization_leave_the_class_of_the_parent_alone() -> None:
    layer = nn.Linear(4, 3)
    parametrize.register_parametrization(layer, "weight", Multiplied(half((3, 4)).float()))
    network, x = nn.Sequential(layer), torch.randn(2, 4)
    model = relax(network, "unmask", example_input=x).model
    assert type(model[0].free) is nn.Linear
    torch.testing.assert_close(network(x), model(x))
    back = project(model)[0]
    torch.testing.assert_close(back.weight, layer.weight)
    assert parametrize.is_parametrized(back)


def test_a_pruned_convolution_goes_on_into_the_lattice() -> None:
    network = nn.Sequential(prune.l1_unstructured(nn.Conv1d(2, 3, 3, padding=1), "weight", 0.5), nn.Flatten(), nn.Linear(15, 2))
    x = torch.randn(2, 2, 5)
    dense = relax(network, "unmask", example_input=x)
    assert dense.report.exact
    connected = relax(dense.model, "lcn", example_input=x)
    assert connected.report.exact
    assert prune.is_pruned(project(connected.model)[0])


def test_what_has_no_mask_has_nothing_to_relax() -> None:
    layers = [nn.Linear(3, 3), prune.l1_unstructured(nn.Linear(3, 3), "weight", 0), nn.ReLU(), prune.identity(nn.Linear(3, 3), "weight")]
    report = plan(nn.Sequential(*layers), "unmask", example_input=torch.zeros(2, 3))
    normed = plan(nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 3))), "unmask", example_input=torch.zeros(2, 3))
    assert normed.idle["0"] == "its parametrizations are no single mask each"
    assert report.idle == {
        "": "it has no mask",
        "0": "it has no mask",
        "1": "its masks are all ones",
        "2": "it has no mask",
        "3": "its masks are all ones",
    }


def test_what_is_refused() -> None:
    soft = prune.custom_from_mask(nn.Linear(3, 3), "weight", torch.full((3, 3), 0.5))
    hooked = prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5)
    hooked.register_forward_hook(lambda module, args, output: 2 * output)
    normed = prune.l1_unstructured(parametrizations.weight_norm(nn.Linear(3, 3)), "bias", 0.5)
    report = plan(nn.Sequential(soft, hooked, normed), "unmask", example_input=torch.zeros(2, 3))
    assert "the mask of its weight holds other numbers than zeros and ones" in report.refused["0"]
    assert "it has hooks" in report.refused["1"]
    assert "it is parametrized" in report.refused["2"]
    assert not any("materialise" in reason for reason in report.refused.values())


def test_a_second_relaxation_that_goes_back_in_a_way_of_its_own_is_refused_before_anything_is_done() -> None:
    class Loop(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(super().forward(x))

    network, x = Loop(prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5)), torch.randn(2, 3)
    dense = relax(network, "unmask", example_input=x).model
    reason = "it is a layer of unmask, and unmask and untie both know how to go back; project the layer first"
    assert plan(dense, "untie", example_input=x).refused == {"0": reason}
    with pytest.raises(SurgeryError, match=r"^0 cannot be relaxed: it is a layer of unmask"):
        relax(dense, "untie", example_input=x)


def test_masks_of_a_layer_that_was_relaxed_before_are_seen() -> None:
    class Both(GroupedQueryAttention):
        def __init__(self) -> None:
            super().__init__(8, 4, 2)
            self.weight = nn.Parameter(torch.randn(8, 8))
            self.register_buffer("mask", half((8, 8)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x @ (self.weight * self.mask))

    network, x = nn.Sequential(Both()), torch.randn(2, 3, 8)
    dense = relax(relax(network, "heads", example_input=x).model, "unmask", example_input=x)
    assert dense.report.exact
    assert [layer.path for layer in dense.report.layers] == ["0"]
    back = project(dense.model)[0]
    assert torch.equal(back.weight, network[0].weight)
    assert torch.equal(back.mask, network[0].mask)
    assert torch.equal(back.k_proj.weight, network[0].k_proj.weight)
