"""Relaxed layers in graphs: compiled, exported, traced."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, export
from torch.fx.experimental.proxy_tensor import make_fx

from anarch_core.layers import relaxed_layers

ANY_BATCH = ({0: Dim("batch", min=1)},)


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.fixture
def _compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.row("`torch.compile(fullgraph=True)`")
@pytest.mark.usefixtures("_compiler")
def test_a_compiled_network(network, batch):
    head, tail = network[:5], network[5:]  # depthwise, two-dimensional and one-dimensional; others are exported below
    results = []
    for model in torch.compile(tail, fullgraph=True, backend="aot_eager"), tail:
        x = head(batch(3)).detach().requires_grad_()
        y = model(x)
        results.append((y, *torch.autograd.grad(y.pow(3).sum(), [x, *tail.parameters()])))
    close(*results)


@pytest.mark.row("`torch.export` with a dynamic batch")
def test_an_exported_network(network, batch):
    program = export(network, (batch(3),), dynamic_shapes=ANY_BATCH)
    for size in 1, 7:
        close(program.module()(batch(size)), network(batch(size)))


@pytest.mark.row("ONNX, `torch.onnx.export(dynamo=True)`")
@pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning", "ignore:.*:DeprecationWarning")
def test_a_network_in_another_runtime(network, batch, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    head, tail = network[:7].float(), network[7:].float().eval()
    program = torch.onnx.export(tail, (head(batch(3).float()).detach(),), dynamic_shapes=ANY_BATCH, dynamo=True, verbose=False)
    program.save(tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    for size in 1, 7:
        x = head(batch(size).float()).detach()
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        close(torch.from_numpy(y), tail(x).detach(), 1e-5)


@pytest.mark.row("`torch.fx.symbolic_trace`")
def test_a_relaxed_layer_is_one_node(network, batch):
    graph = torch.fx.symbolic_trace(network)
    close(graph(batch(3)), network(batch(3)))
    assert set(relaxed_layers(network)) <= {node.target for node in graph.graph.nodes if node.op == "call_module"}


@pytest.mark.row("torchvision's `create_feature_extractor`")
def test_features_of_a_relaxed_layer(network, batch):
    extraction = pytest.importorskip("torchvision.models.feature_extraction")
    whole = nn.Sequential(nn.Identity(), network)
    path, features = "1.3", batch(3)
    for module in network[:4]:
        features = module(features)
    extractor = extraction.create_feature_extractor(whole, [path, "1.10"])
    found = extractor(batch(3))
    close(found[path], features)
    close(found["1.10"], network(batch(3)))


@pytest.mark.row("stand-ins without numbers, `FakeTensorMode`")
def test_stand_ins_leave_nothing_behind(network, batch):
    expected = network(batch(3))
    with FakeTensorMode() as mode:
        stand_in = copy.copy(network)
        fakes = {name: mode.from_tensor(parameter) for name, parameter in network.named_parameters()}
        y = torch.func.functional_call(stand_in, fakes, (mode.from_tensor(batch(3)),))
    assert y.shape == expected.shape
    close(network(batch(3)), expected)


@pytest.mark.row("`make_fx`")
def test_a_graph_of_every_operation(network, batch):
    graph = make_fx(network)(batch(3))
    close(graph(batch(3) + 1), network(batch(3) + 1))
