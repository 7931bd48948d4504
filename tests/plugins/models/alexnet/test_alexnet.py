"""The AlexNet of the paper's appendix has the published sizes."""

from __future__ import annotations

import torch
from torch import nn

from anarch_core.models import build_model


def test_published_parameter_counts() -> None:
    """2.45 M convolution parameters; as an eFCN 238.6 M with padded columns and 126.4 M without."""
    features = build_model("alexnet", input_shape=(3, 32, 32), classes=100).get_submodule("features")
    small = padded = in_bounds = 0
    x = torch.zeros(1, 3, 32, 32)
    for layer in features:  # type: ignore[attr-defined]
        y = layer(x)
        if isinstance(layer, nn.Conv2d):
            small += layer.weight.numel() + layer.out_channels
            padded_inputs = layer.in_channels * (x.shape[2] + 2 * int(layer.padding[0])) * (x.shape[3] + 2 * int(layer.padding[1]))
            padded += (padded_inputs + 1) * y.numel()
            in_bounds += (x.numel() + 1) * y.numel()
        x = y
    assert (small, padded, in_bounds) == (2_449_536, 238_650_304, 126_433_216)


def test_classifier_drops_out_before_its_first_two_layers() -> None:
    classifier = build_model("alexnet", input_shape=(3, 32, 32), classes=100).get_submodule("classifier")
    layers = [type(layer).__name__ for layer in classifier.children()]
    assert layers == ["Flatten", "Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"]
    assert [layer.out_features for layer in classifier.children() if isinstance(layer, nn.Linear)] == [512, 512, 100]
