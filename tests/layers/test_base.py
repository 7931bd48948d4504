"""A relaxed layer is one thing, whatever it is made of."""

from __future__ import annotations

import torch
from torch import nn

from anarch_core.constraint.parts import Drift
from anarch_core.layers.base import RelaxedLayer, relaxed_layers, whole_modules
from anarch_core.relaxation.surgery import candidates
from anarch_core.relaxation.verbs import drift, project


class Inner(RelaxedLayer):
    """A layer that doubles."""

    relaxation = "inner"

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)

    def reset_parameters(self) -> None:
        self.conv.reset_parameters()

    def project(self) -> nn.Module:
        return nn.Conv1d(1, 1, 1)

    def drift(self, reference: nn.Module | None = None) -> Drift:
        return Drift(shared=1.0, unshared=0.0, off_local=0.0)

    def split(self, tensor, name="weight"):
        return tensor, torch.zeros_like(tensor), torch.zeros_like(tensor)


class Outer(Inner):
    """A relaxed layer that holds another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()


def network() -> nn.Module:
    return nn.Sequential(Outer(), nn.Conv1d(1, 1, 1), Inner(), nn.ReLU())


def test_what_a_relaxed_layer_is_made_of_is_not_listed():
    assert [path for path, _ in whole_modules(network())] == ["", "0", "1", "2", "3"]
    assert list(relaxed_layers(network())) == ["0", "2"]
    assert list(candidates(network(), (nn.Conv1d, RelaxedLayer))) == ["0", "1", "2"]


def test_a_network_may_be_a_relaxed_layer():
    assert list(relaxed_layers(Outer())) == [""]


def test_it_is_projected_and_counted_once():
    assert drift(network()).total.shared == 2.0
    assert [type(module).__name__ for module in project(network())] == ["Conv1d", "Conv1d", "Conv1d", "ReLU"]


def test_it_is_one_node_where_a_network_is_traced():
    x = torch.randn(2, 1, 4)
    traced = torch.fx.symbolic_trace(network())
    assert [node.target for node in traced.graph.nodes if node.op == "call_module"] == ["0", "1", "2", "3"]
    assert traced(x).shape == x.shape


def test_it_may_be_called_by_keyword_where_a_network_is_traced():
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Outer()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x=x)

    model, x = Network(), torch.randn(2, 1, 4)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), model(x))


def test_memory_formats_are_for_what_it_holds_and_not_for_its_own_parameters():
    class Holder(Inner):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 2)
            self.own = nn.Parameter(torch.randn(2, 2, 2, 2))
            self.register_buffer("kept", torch.randn(2, 2, 2, 2, 2))

    layer = Holder()
    own, kept = layer.own.detach().clone(), layer.kept.clone()
    layer.own.grad = torch.ones_like(layer.own)
    assert nn.Sequential(layer).to(memory_format=torch.channels_last)[0] is layer
    assert layer.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert layer.own.is_contiguous()
    assert layer.kept.is_contiguous()
    layer.double()
    torch.testing.assert_close((layer.own.detach(), layer.kept), (own.double(), kept.double()))
    assert layer.own.grad.dtype == torch.float64
