"""Networks that people have, relaxed whole: the verdict is right, and the outputs are those of the parent."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils._pytree import tree_leaves

from anarch_core.relaxation.verbs import relax

TORCHVISION = {
    "alexnet": 64,
    "squeezenet1_1": 32,
    "efficientnet_b0": 16,
    "mobilenet_v3_small": 16,
    "convnext_tiny": 32,
    "shufflenet_v2_x0_5": 32,
    "densenet121": 32,
    "googlenet": 32,
    "fcn_resnet50": 16,
}
TIMM = ["mobilenetv3_small_100", "ghostnet_100", "hardcorenas_a", "lcnet_050", "efficientvit_b0", "davit_tiny", "nf_resnet26"]


def torchvision_model(name):
    models = pytest.importorskip("torchvision.models", exc_type=(ImportError, RuntimeError))
    if name == "fcn_resnet50":
        return models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=3)
    return getattr(models, name)(weights=None, **({"init_weights": False} if name == "googlenet" else {}))


def require_exact(model, family, x, **options):
    model = model.double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        relaxed = relax(model, family, example_input=x.double(), **options)
    assert relaxed.report.exact
    assert relaxed.report.error < 1e-10
    assert max(layer.error for layer in relaxed.report.layers) < 1e-12
    with torch.no_grad():
        outputs, expected = (tree_leaves(network.eval()(x.double())) for network in (relaxed.model, model))
    for found, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10 * float(wanted.abs().max()))
    return relaxed.report


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION)
def test_networks_of_torchvision(name):
    torch.manual_seed(0)
    model, size = torchvision_model(name).eval(), TORCHVISION[name]
    report = require_exact(model, "lcn", torch.randn(2, 3, size, size))
    assert not report.notes
    assert len(report.layers) == sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_b0", "googlenet"])
def test_networks_of_torchvision_in_training_mode(name):
    torch.manual_seed(0)
    require_exact(torchvision_model(name).train(), "lcn", torch.randn(2, 3, 32, 32))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_networks_of_torchvision_as_fully_connected_ones(name):
    torch.manual_seed(0)
    require_exact(
        torchvision_model(name).eval(), "efcn", torch.randn(2, 3, 16, 16) if name != "squeezenet1_1" else torch.randn(2, 3, 32, 32)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMM)
def test_networks_of_timm(name):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False).eval()
    require_exact(model, "lcn", torch.randn(2, 3, 32, 32), materialise=name.startswith("nf_"))
