"""Which channels of a network can be permuted: found by following them, and seen to change nothing that it computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import anarch_core
from anarch_core.alignment import symmetries
from anarch_core.alignment.slots import move
from anarch_core.errors import ProbeError
from tests.alignment.networks import difference, equal, network, permuted, tensors

NETWORKS = [
    ("cnn1d", None),
    ("cnn1d", "efcn"),
    ("cnn1d", "lcn"),
    ("cnn1d", "tiled"),
    ("cnn1d", "shared"),
    ("vanilla-cnn", None),
    ("vanilla-cnn", "efcn"),
    ("vanilla-cnn", "lcn"),
    ("resnet20", None),
    ("resnet20", "efcn"),
    ("resnet20", "tiled"),
    ("separable", None),
    ("separable", "efcn"),
    ("separable", "lcn"),
    ("separable", "ungroup"),
    ("pruned-mlp", None),
]


@pytest.mark.parametrize(("name", "relaxation"), NETWORKS)
def test_a_permuted_network_computes_the_same(name: str, relaxation: str | None) -> None:
    model, x = network(name, relaxation)
    found = symmetries(model, x)
    other = permuted(model, x)
    assert not found.pinned
    assert not equal(model, other)
    assert difference(model, other, x) < 1e-12


def test_every_hidden_channel_is_in_one_group() -> None:
    model, x = network("cnn1d")
    assert [(group.name, group.size) for group in symmetries(model, x).groups] == [("features.0", 5), ("features.2", 5), ("features.4", 5)]


def test_additions_make_the_channels_of_a_stage_one_and_padded_channels_are_free() -> None:
    """The shortcut of a wider stage has zeros for its new channels, so the stage's channels are those of the last one, and the new ones."""
    model, x = network("resnet20")
    sizes = {group.name: group.size for group in symmetries(model, x).groups}
    assert sizes["features.stem.0"] == 16
    assert sizes["features.stage2.0.conv2"] == 16
    assert sizes["features.stage3.0.conv2"] == 32
    assert sizes["features.stage3.1.conv1"] == 64


def test_depthwise_channels_are_permuted_with_their_inputs() -> None:
    model, x = network("separable")
    names = [group.name for group in symmetries(model, x).groups]
    assert names == ["features.stem.conv", "features.blocks.0.pointwise", "features.blocks.1.pointwise"]


@pytest.mark.parametrize("relaxation", ["efcn", "lcn", "tiled", "shared"])
@pytest.mark.parametrize("name", ["cnn1d", "vanilla-cnn", "separable"])
def test_the_relaxation_of_a_permuted_network_is_the_permuted_relaxation(name: str, relaxation: str) -> None:
    model, x = network(name)
    relaxed, of_permuted = (anarch_core.relax(each, relaxation, example_input=x).model for each in (model, permuted(model, x)))
    assert equal(permuted(relaxed, x), of_permuted)


@pytest.mark.parametrize(("name", "relaxation"), [("cnn1d", "efcn"), ("cnn1d", "tiled"), ("separable", "efcn"), ("separable", "ungroup")])
def test_the_projection_of_a_permuted_network_is_the_permuted_projection(name: str, relaxation: str) -> None:
    model, x = network(name, relaxation)
    projected = permuted(anarch_core.project(model), x)
    for tensor, other in zip(tensors(projected).values(), tensors(anarch_core.project(permuted(model, x))).values(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=0, atol=1e-13)


class Written(nn.Module):
    """A network of functions rather than modules."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.beside = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(2, 4, 1)
        self.grouped = nn.Conv2d(10, 10, 3, padding=1, groups=2)
        self.squeeze, self.excite = nn.Linear(10, 5), nn.Linear(5, 10)
        self.scale = nn.Parameter(torch.randn(10, 1, 1))
        self.norm = nn.GroupNorm(2, 10)
        self.wide = nn.Conv2d(10, 12, 3, stride=2)
        self.rows = nn.LayerNorm(6)
        self.head = nn.Linear(6 * 9, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.cat([functional.relu(self.first(x)), torch.tanh(self.beside(x))], dim=1)
        y = y + self.scale * self.grouped(functional.pad(y, (1, 1, 0, 0), mode="replicate")[..., 1:-1])
        gate = torch.sigmoid(self.excite(functional.gelu(self.squeeze(y.mean((2, 3))))))
        y = self.norm(y * gate[:, :, None, None])
        a, b = self.wide(functional.max_pool2d(y, 1)).chunk(2, dim=1)
        y = self.rows((a * b.sigmoid()).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(y.flatten(1))


def test_functions_are_followed_as_modules_are() -> None:
    torch.manual_seed(0)
    model, x = Written().double().eval(), torch.randn(3, 2, 7, 7, dtype=torch.float64)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    found = symmetries(model, x)
    assert not found.pinned
    # the last of the six channels of `first` is in the second group of `grouped` and of the norm, alone
    assert [(group.name, group.size) for group in found.groups] == [("first", 5), ("beside", 4), ("squeeze", 5), ("wide", 6)]
    assert difference(model, permuted(model, x), x) < 1e-11


def test_channels_of_different_groups_of_a_convolution_do_not_change_places() -> None:
    model = nn.Sequential(nn.Conv1d(1, 6, 3), nn.Conv1d(6, 9, 3, groups=3), nn.Flatten(), nn.Linear(9 * 4, 2)).double()
    x = torch.randn(2, 1, 8, dtype=torch.float64)
    found = symmetries(model, x)
    assert [group.size for group in found.groups] == [2, 2, 2, 3, 3, 3]
    assert difference(model, permuted(model, x), x) < 1e-12


def test_a_module_that_is_called_twice_has_one_permutation_for_both_calls() -> None:
    shared = nn.Linear(5, 5)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(5, 2)).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    assert [group.size for group in symmetries(model, x).groups] == [5]
    assert difference(model, permuted(model, x), x) < 1e-12


class Sorted(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(1)


def test_what_is_not_understood_stays_where_it_is_and_says_why() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), Sorted(), nn.Linear(5, 2)).double()
    x = torch.randn(2, 4, dtype=torch.float64)
    found = symmetries(model, x)
    assert [group.name for group in found.groups] == ["0"]
    assert found.pinned == {"3": "what cumsum does with channels is not known"}


def test_a_weight_that_is_used_in_another_way_too_pins_its_channels() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encode = nn.Linear(4, 6)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.linear(self.encode(x).relu(), self.encode.weight.t())

    found = symmetries(Tied().double(), torch.randn(2, 4, dtype=torch.float64))
    assert not found.groups
    assert "t does" in found.why()


def test_masks_are_permuted_with_the_weights_that_they_mask() -> None:
    model, x = network("pruned-mlp", pruned=0.5, mask="random")
    other = permuted(model, x)
    assert not torch.equal(model.linear2.weight_mask, other.linear2.weight_mask)
    assert difference(model, other, x) < 1e-12


def test_a_constraint_that_a_permutation_would_break_keeps_its_channels() -> None:
    """Weights that were pruned are free now, but going back is to the mask that there was."""
    pruned, x = network("pruned-mlp", pruned=0.5, mask="random")
    found = symmetries(anarch_core.relax(pruned, "unmask", example_input=x).model, x)
    assert not found.groups
    assert "was constrained (unmask)" in found.why()


def test_computations_that_cannot_be_followed_are_refused_by_path() -> None:
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(2 * x.numpy())

    model = nn.Sequential(nn.Linear(4, 6), nn.Sequential(Doubled()), nn.Linear(6, 2))
    with pytest.raises(
        ProbeError, match=r"the channels of 1\.0 cannot be followed: it computes by something other than functions of torch"
    ):
        symmetries(model, torch.randn(2, 4))


def test_a_network_that_does_not_run_on_the_example_is_refused() -> None:
    model, _ = network("cnn1d")
    with pytest.raises(ProbeError, match=r"does not run on inputs of shape \[2, 7, 20\]"):
        symmetries(model, torch.randn(2, 7, 20, dtype=torch.float64))


def test_following_leaves_the_network_as_it_was() -> None:
    model, x = network("resnet20", "efcn")
    model.train()
    before = copy.deepcopy(model)
    symmetries(model, x)
    assert equal(model, before)
    assert model.training
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_moving_a_group_puts_the_channel_at_each_place_that_is_named() -> None:
    model, x = network("cnn1d")
    before = copy.deepcopy(model)
    move(symmetries(model, x).groups[0], torch.tensor([2, 0, 1, 4, 3]), tensors(model))
    first = model.get_submodule("features.0")
    torch.testing.assert_close(first.weight[0], before.get_submodule("features.0").weight[2], rtol=0, atol=0)
    torch.testing.assert_close(
        model.get_submodule("features.2").weight[:, 3], before.get_submodule("features.2").weight[:, 4], rtol=0, atol=0
    )
