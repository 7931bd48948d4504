"""A relaxed layer that its network does not use as its parent did is an error that names it."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn
from torch.nn import functional

from anarch_core.errors import SurgeryError
from anarch_core.relaxation.verbs import relax


def closure(network):
    model = network(lambda self, x: self.f(x))
    model.f = lambda x: model.c(x)
    return model


def closure_of_another(network):
    model = network(lambda self, x: self.f(self.c(x)), other=nn.Linear(6, 6))
    model.f = lambda x: model.other(x)
    return model


def compiled_forward(network):
    model = network(lambda self, x: self.f(x))
    model.f = torch.compile(model.c.forward, backend="eager")
    return model


def view_of_the_weight(network):
    model = network(lambda self, x: self.c(x) * self.flat.sum())
    object.__setattr__(model, "flat", model.c.weight.detach().view(-1))
    return model


def patched(network):
    model = network(lambda self, x: self.c(x))
    forward = model.c.forward
    model.c.forward = lambda x: 2 * forward(x)
    return model


def scripted(network):
    return network(lambda self, x: self.c(self.s(x)), s=torch.jit.script(nn.Conv2d(2, 2, 3, padding=1)))


def quantised(network):
    layer = torch.ao.nn.quantized.Conv2d(2, 2, 3, padding=1)
    return network(lambda self, x: self.c(self.q(torch.quantize_per_tensor(x, 0.1, 0, torch.quint8)).dequantize()), q=layer)


class Pair(nn.Conv2d):
    def forward(self, x):
        return super().forward(x), x


def memory_of_another(network):
    model = network(lambda self, x: self.d(self.c(x)), d=nn.Conv2d(2, 2, 3, padding=1))
    model.d.weight.data = model.c.weight.data
    return model


def weight_as_a_buffer(network):
    model = network(lambda self, x: self.c(x), c=nn.Conv2d(2, 2, 3, bias=False))
    weight = model.c.weight.detach()
    del model.c.weight
    model.c.register_buffer("weight", weight)
    return model


REFUSED = {
    "weight as a buffer": (weight_as_a_buffer, "c", "its weight is a Tensor, no parameter"),
    "closure": (closure, "c", "the relaxed network calls it 0 times on the example, its parent 1 time"),
    "closure of another layer": (closure_of_another, "other", "the relaxed network goes on using other.weight of the network it came from"),
    "compiled forward": (compiled_forward, "c", "its weight is used outside of it"),
    "weight in a function": (
        lambda network: network(lambda self, x: self.c(x) + functional.conv2d(x, self.c.weight, padding=1)),
        "c",
        r"its weight is used outside of it, too \(aten.convolution\)",
    ),
    "tied decoder": (
        lambda network: network(lambda self, x: functional.conv_transpose2d(self.c(x), self.c.weight, padding=1)),
        "c",
        "its weight is used outside of it",
    ),
    "penalty": (lambda network: network(lambda self, x: (self.c(x), self.c.weight.norm())), "c", "its weight is used outside of it"),
    "view of the weight": (view_of_the_weight, "c", "its weight is used outside of it"),
    "patched": (patched, "c", "its forward was replaced by another function"),
    "scripted": (scripted, "s", "it is compiled by torch.jit"),
    "quantised": (quantised, "q", "it is a Conv2d, which lcn does not know how to embed"),
    "complex": (
        lambda network: network(lambda self, x: self.c(x + 0j).abs(), c=nn.Conv2d(2, 2, 3, dtype=torch.complex64)),
        "c",
        "complex64",
    ),
    "pair": (lambda network: network(lambda self, x: self.c(x)[0], c=Pair(2, 2, 3)), "c", "returns a tuple, not a tensor for a tensor"),
}


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script.* is deprecated", "ignore:.*torch.ao.*deprecated", "ignore:.*quantized tensor creation functions"
)
@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_silently_unused_is_refused_by_path(network, x, case):
    build, path, message = REFUSED[case]
    with pytest.raises(SurgeryError, match=message) as caught:
        relax(build(network), "lcn", example_input=x)
    assert caught.value.paths == (path,)
    assert "\n" not in str(caught.value)


def held_in_a_list(network):
    model = network(lambda self, x: self.layers_[0](x))
    model.layers_ = [model.c]
    return model


def partial(network):
    model = network(lambda self, x: self.f(x))
    model.f = functools.partial(model.c)
    return model


def compiled_in_place(network):
    model = network(lambda self, x: self.c(x))
    model.compile(backend="eager")
    return model


def compiled_part(network):
    model = network(lambda self, x: self.part(x))
    model.part = torch.compile(model.c, backend="eager")
    return model


def test_memory_that_two_layers_share_is_noticed(network, x):
    with pytest.raises(SurgeryError, match=r"c cannot be relaxed: it shares a parameter with d; d cannot be relaxed: .* with c"):
        relax(memory_of_another(network), "lcn", example_input=x)
    model = nn.Sequential(nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    nn.utils.vector_to_parameters(nn.utils.parameters_to_vector(model.parameters()).detach(), model.parameters())  # side by side in one
    assert relax(model, "lcn", example_input=x).report.exact


@pytest.mark.parametrize("build", [held_in_a_list, partial, compiled_in_place, compiled_part])
def test_what_copying_does_reach_is_relaxed_and_trained(network, x, build):
    relaxed = relax(build(network), "efcn", example_input=x)
    assert relaxed.report.exact
    relaxed.model(x).sum().backward()
    assert relaxed.model.c.weight.grad.abs().sum() > 0


def test_an_error_inside_the_relaxed_network_names_the_layer(network, x):
    model = network(lambda self, x: self.c(x) * self.c.gain)
    model.c.gain = 1.0  # no attribute of a relaxed layer
    with pytest.raises(SurgeryError, match=r"the relaxed network does not run on the example input .* where its parent does: it raises"):
        relax(model, "lcn", example_input=x)


def test_paths_with_brackets_are_taken_as_they_are_written(x):
    model = nn.Sequential()
    model.add_module("branch[0]", nn.Conv2d(2, 2, 3))
    model.add_module("branch[1]", nn.Conv2d(2, 2, 3))
    assert [layer.path for layer in relax(model, "lcn", example_input=x, layers="branch[0]").report.layers] == ["branch[0]"]
    assert [layer.path for layer in relax(model, "lcn", example_input=x, layers=["*", "!branch[0]"]).report.layers] == ["branch[1]"]


def test_a_network_that_raises_on_the_example_is_quoted(network):
    def fails(self, x):
        raise KeyError("mask")

    with pytest.raises(SurgeryError, match=r"does not accept the example input \(\[1\] float32\): KeyError: 'mask'"):
        relax(network(fails), "lcn", example_input=torch.ones(1))
