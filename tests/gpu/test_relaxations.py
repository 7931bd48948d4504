"""Every relaxation on a card: the outputs of its parent, the gradients that the processor finds, and steps that are captured."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from anarch_core.models import build_model
from anarch_core.relaxation.verbs import project, relax
from anarch_core.training.loop import Training
from tests.gpu.built_in import built_in

SIGNALS = (1, 20)
NETWORKS = {
    "efcn": ("cnn1d", SIGNALS, {"channels": 3}),
    "lcn": ("cnn1d", SIGNALS, {"channels": 3}),
    "shared": ("cnn1d", SIGNALS, {"channels": 3}),
    "tiled": ("cnn1d", SIGNALS, {"channels": 3}),
    "grow": ("cnn1d", SIGNALS, {"channels": 3}),
    "ungroup": ("separable", SIGNALS, {}),
    "unmask": ("pruned-mlp", SIGNALS, {"hidden": (8, 6)}),
    "untie": ("rnn1d", SIGNALS, {}),
    "heads": ("vit", SIGNALS, {}),
    "positions": ("vit", SIGNALS, {}),
    "p4": ("p4-cnn", (3, 12, 12), {"channels": 3}),
}


def parent(name, device, dtype):
    model, shape, options = NETWORKS[name]
    torch.manual_seed(0)
    network = build_model(model, input_shape=shape, classes=3, options=options).to(device, dtype)
    return network, torch.randn(6, *shape, device=device, dtype=dtype), torch.arange(6, device=device) % 3


def test_every_relaxation_is_here():
    assert NETWORKS.keys() == built_in("relaxation")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_outputs_are_those_of_the_parent(device, name, dtype):
    network, x, _ = parent(name, device, dtype)
    network.eval()
    relaxed = relax(network, name, example_input=x)
    exact = 1e-10 if dtype == torch.float64 else 1e-4
    with torch.no_grad():
        torch.testing.assert_close(relaxed.model.eval()(x), network(x), rtol=exact, atol=exact)
        torch.testing.assert_close(project(relaxed.model)(x), network(x), rtol=exact, atol=exact)
    assert {tensor.device.type for tensor in relaxed.model.state_dict().values()} == {device.type}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradients_are_those_of_the_processor(device, name):
    network, x, y = parent(name, device, torch.float64)
    there = relax(network, name, example_input=x).model.eval()
    here = copy.deepcopy(there).cpu()
    for model, inputs, targets in ((there, x, y), (here, x.cpu(), y.cpu())):
        cross_entropy(model(inputs), targets).backward()
    for (path, one), other in zip(there.named_parameters(), here.parameters(), strict=True):
        assert one.grad is not None, path
        torch.testing.assert_close(one.grad.cpu(), other.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_captured_steps_are_the_ordinary_ones_and_wait_for_nothing(device, never_waits, name):
    found = []
    for capture in "auto", "off":
        network, x, y = parent(name, device, torch.float32)
        model = relax(network, name, example_input=x).model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, fused=True)
        torch.manual_seed(1)
        loop = Training(
            model=model, optimizer=optimizer, x=x, y=y, batch_size=2, seed=0, learning_rate=lambda step: 0.05 / (1 + step), capture=capture
        )
        loop.advance(3)
        loop.end_epoch()
        rows = torch.tensor([5, 2], device=device)
        with never_waits:
            for _ in range(6):
                assert capture == "off" or loop._captured.take(rows, None), loop.not_captured
                if capture == "off":
                    loop._step(rows, None)
        found.append(loop)
    captured, ordinary = found
    assert (captured.captured, captured.not_captured) == (8, None)
    for path, tensor in captured.model.state_dict().items():
        torch.testing.assert_close(tensor, ordinary.model.state_dict()[path], rtol=1e-4, atol=1e-5, msg=lambda text, path=path: path + text)
