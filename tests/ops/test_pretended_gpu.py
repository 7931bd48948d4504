"""What would happen on a GPU, on stand-ins for its tensors that hold no numbers: PyTorch refuses to mix devices there as on a real one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from anarch_core.ops import ordinary
from anarch_core.ops.gathers import gather_plan
from anarch_core.relaxation.verbs import relax
from anarch_plugins.relaxations.shared import fourier, relaxation, rows

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _as_if_they_were_plain(monkeypatch):
    """Layers take stand-ins for what they stand in for, and nothing of them stays in a cache."""
    monkeypatch.setattr(ordinary, "PLAIN", {*ordinary.PLAIN, FakeTensor})
    yield
    for kept in gather_plan, rows._table, fourier._reads:
        kept.cache_clear()


class Transfers(TorchDispatchMode):
    """Counts what goes from one device to another, and what waits for a number."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in (*args, result) if isinstance(t, torch.Tensor) and t.ndim]
        if len({t.device for t in tensors}) > 1 or "_local_scalar_dense" in func.name():
            self.found.append(func.name())
        return result


def moved(model):
    for module in model.modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                module._parameters[name] = nn.Parameter(torch.empty(tensor.shape, device=GPU))
    return model


@pytest.mark.parametrize("transform", [False, True], ids=["rows", "transform"])
@pytest.mark.parametrize("name", ["efcn", "lcn", "tiled", "shared"])
def test_a_second_forward_pass_moves_nothing_and_waits_for_nothing(monkeypatch, name, transform):
    monkeypatch.setattr(relaxation, "SLOWNESS", 0 if transform else 2**60)
    monkeypatch.setattr(rows, "SMALL", 0)
    cnn = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))
    relaxed = relax(cnn, name, example_input=torch.randn(2, 3, 8, 8)).model
    with FakeTensorMode(allow_non_fake_inputs=True):
        moved(relaxed)
        x = torch.empty(5, 3, 8, 8, device=GPU)
        assert relaxed(x).device == GPU
        with Transfers() as transfers:
            relaxed(x)
    assert transfers.found == []


def test_transfers_are_found():
    with FakeTensorMode(allow_non_fake_inputs=True), Transfers() as transfers:
        torch.zeros(3).to(GPU)
    assert transfers.found == ["aten::_to_copy"]


def test_the_gradients_of_a_locally_connected_layer_stay_on_the_device():
    conv = nn.Conv2d(4, 6, 3, padding=1, groups=2)
    layer = relax(nn.Sequential(conv), "lcn", example_input=torch.randn(2, 4, 5, 5)).model[0]
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, gx, grad = (torch.empty(3, n, device=GPU) for n in (100, 100, 150))
        weight = torch.empty(layer.weight.shape, device=GPU)
        kernels = gather_plan(layer.geometry, GPU)
        with Transfers() as transfers:
            kernels.write_input_gradient(gx, grad, weight)
            kernels.accumulate_weights(weight, x, grad, beta=0.5, alpha=-0.1)
    assert transfers.found == []
