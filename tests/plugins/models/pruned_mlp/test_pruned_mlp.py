"""LeNet-300-100 of which most weights are zero and stay zero."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.models import build_model


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.named_buffers() if name.endswith("weight_mask")}


def test_the_output_layer_is_pruned_at_half_the_rate() -> None:
    model = build_model("pruned-mlp", input_shape=(1, 40), classes=10)
    assert {name: round(1 - float(mask.mean()), 6) for name, mask in weights(model).items()} == {
        "linear1.weight_mask": 0.9,
        "linear2.weight_mask": 0.9,
        "linear3.weight_mask": 0.45,
    }
    assert sum(int(mask.sum()) for mask in weights(model).values()) == 4_750


@pytest.mark.parametrize("mask", ["magnitude", "random"])
def test_which_weights_are_pruned(mask: str) -> None:
    model = build_model("pruned-mlp", input_shape=(3, 4), classes=2, options={"hidden": (5,), "pruned": 0.4, "mask": mask})
    layer = model.get_submodule("linear1")
    kept, lost = (layer.weight_orig[layer.weight_mask == value].abs() for value in (1, 0))
    assert (len(kept), len(lost)) == (36, 24)
    assert bool(lost.max() <= kept.min()) == (mask == "magnitude")


def test_training_leaves_pruned_weights_at_zero() -> None:
    model = build_model("pruned-mlp", input_shape=(1, 8), classes=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.randn(4, 1, 8)).square().sum().backward()
    optimizer.step()
    model(torch.randn(4, 1, 8))
    layer = model.get_submodule("linear1")
    assert not layer.weight[layer.weight_mask == 0].any()
