"""Layers that take and give anything, by position or by name, once or several times in a pass of their network."""

from __future__ import annotations

import copy
import pickle
import sys

import attrs
import pytest
import torch
from torch import nn
from torch.nn.utils.prune import random_unstructured

from anarch_core.checkpoint.network import load, save
from anarch_core.constraint.parts import Drift
from anarch_core.errors import CheckpointError, InexactRelaxationWarning, SurgeryError
from anarch_core.layers.base import Cost, RelaxedLayer
from anarch_core.network import copied
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.records import RelaxationInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.relaxation.base import AbstractRelaxation
from anarch_core.relaxation.own_loop import switch, switch_back
from anarch_core.relaxation.passes import begin_pass
from anarch_core.relaxation.verbs import applied_relaxations, plan, project, reapply, relax

SITES = []


class Turns(RelaxedLayer):
    """A copy of a module for each call in a pass of its network."""

    relaxation = "turns"

    def __init__(self, module, calls):
        super().__init__()
        self.copies = nn.ModuleList(copied(module) for _ in range(calls))
        self.turn = 0

    def begin_pass(self):
        self.turn = 0

    def forward(self, *args, **kwargs):
        if self.turn == len(self.copies):
            raise ValueError(f"call {self.turn + 1} of {len(self.copies)} in one pass")
        self.turn += 1
        return self.copies[self.turn - 1](*args, **kwargs)

    def reset_parameters(self):
        for module in self.copies:
            module.reset_parameters()

    def project(self):
        return copied(self.copies[0])

    def drift(self, reference=None):
        return Drift(shared=1.0, unshared=0.0, off_local=0.0)

    def split(self, tensor, name="weight"):
        return tensor.clone(), torch.zeros_like(tensor), torch.zeros_like(tensor)


class TurnsRelaxation(AbstractRelaxation):
    targets = (nn.Module,)
    sized = False

    def idle(self, site):
        return "it is called once" if site.calls < 2 else None

    def understands(self, module):
        return hasattr(module, "understood")

    def refusal(self, site):
        return None

    def cost(self, site):
        return Cost(parameters=site.calls * sum(p.numel() for p in site.module.parameters()), flops=1)

    def lift(self, site):
        SITES.append(site)
        return Turns(site.module, site.calls)

    def transport(self, site, layer, name, tensor, role):
        return {f"copies.{turn}.{name}": tensor.clone() for turn in range(len(layer.copies))}


class AnyRelaxation(TurnsRelaxation):
    """Of chosen kinds of layers, called as often as they are."""

    targets = (nn.RNNBase, nn.MultiheadAttention, nn.Bilinear, nn.Linear)

    def idle(self, site):
        return None


class OffRelaxation(AnyRelaxation):
    """Which is not what it was."""

    def lift(self, site):
        layer = super().lift(site)
        layer.register_forward_hook(lambda module, args, output: (output[0], output[1] * 1.01))
        return layer


@pytest.fixture
def registry() -> Registry:
    assert sys.modules[__name__].Turns is Turns
    infos = [
        RelaxationInfo(name=name, summary="s", target=f"{__name__}:{target}")
        for name, target in {"turns": "TurnsRelaxation", "any": "AnyRelaxation", "off": "OffRelaxation"}.items()
    ]
    SITES.clear()
    plugin = PluginRecord(name="turns", module="m", distribution="x", version="1", status=Status.LOADED, components=tuple(infos))
    return Registry((*get_registry().plugins, plugin))


class Network(nn.Module):
    """Of named layers and a function of itself and its inputs."""

    def __init__(self, forward, **layers):
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def thrice(self, x):
    for _ in range(3):
        x = x + torch.tanh(self.block(x))
    return self.head(x)


def tied() -> nn.Module:
    torch.manual_seed(0)
    return Network(thrice, block=nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 5)), head=nn.Linear(5, 2)).double()


X = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
SEQUENCE = torch.randn(3, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

LAYERS = {
    "recurrent": (nn.RNN(5, 4, batch_first=True), lambda self, x: self.layer(x)[1], (6, 5)),
    "long short-term memory": (nn.LSTM(5, 4, batch_first=True), lambda self, x: self.layer(input=x)[1][1], (6, 5)),
    "attention by name": (nn.MultiheadAttention(5, 1, batch_first=True), lambda self, x: self.layer(query=x, key=x, value=x)[0], ()),
    "two inputs": (nn.Bilinear(5, 5, 2), lambda self, x: self.layer(x, input2=x.flip(-1)), ()),
    "inputs of several sizes": (nn.Linear(5, 2), lambda self, x: self.layer(x).sum() + self.layer(x[:, 0]), ()),
}


@pytest.mark.parametrize("case", LAYERS)
def test_layers_of_any_arguments_and_outputs_are_relaxed_exactly(case, registry):
    layer, forward, input_shape = LAYERS[case]
    model = Network(forward, layer=layer).double()
    relaxed = relax(model, "any", example_input=SEQUENCE, registry=registry)
    assert relaxed.report.exact
    assert relaxed.report.error == 0
    assert [site.input_shape for site in SITES] == [input_shape]
    torch.testing.assert_close(relaxed.model(SEQUENCE), model(SEQUENCE), rtol=0, atol=0)
    again = reapply(model, applied_relaxations(relaxed.model), registry=registry)
    torch.testing.assert_close(again(SEQUENCE), model(SEQUENCE), rtol=0, atol=0)


def test_a_relaxation_is_told_with_what_its_layer_is_called(registry):
    model = Network(
        lambda self, x: self.layer(x, key=x, value=x.mul(2), need_weights=False)[0], layer=nn.MultiheadAttention(5, 1, batch_first=True)
    )
    relax(model.double(), "any", example_input=SEQUENCE, registry=registry)
    ((args, kwargs),) = [site.arguments for site in SITES]
    assert [(value.device.type, value.dtype, tuple(value.shape)) for value in args] == [("meta", torch.float64, (3, 6, 5))]
    assert list(kwargs) == ["key", "value", "need_weights"]
    assert kwargs["need_weights"] is False
    SITES.clear()
    reapply(model, applied_relaxations(relax(model, "any", example_input=SEQUENCE, registry=registry).model), registry=registry)
    assert SITES[-1].arguments is None


def test_what_a_layer_was_given_is_told_as_it_was_before_the_call(registry):
    class Filling(nn.Linear):
        def forward(self, x, *, cache):
            cache.append(x)
            return super().forward(x)

    model = Network(lambda self, x: self.layer(x, cache=[]), layer=Filling(5, 2)).double()
    relax(model, "any", example_input=X, registry=registry)
    assert SITES[0].arguments[1] == {"cache": []}


def test_every_number_of_every_output_is_compared(registry):
    model = Network(lambda self, x: self.layer(x)[0], layer=nn.RNN(5, 4)).double()  # the second output goes nowhere
    with pytest.warns(InexactRelaxationWarning, match=r"1\.0e-02 at layer"):
        report = relax(model, "off", example_input=SEQUENCE, registry=registry).report
    assert (report.error, report.layers[0].error) == (0, pytest.approx(0.01))


def test_rounding_of_layers_with_several_outputs_is_weighed_against_the_parents_own(registry):
    model = Network(lambda self, x: (self.layer(x)[1] * 1e14).sin(), layer=nn.RNN(5, 4)).double()

    class Noisy(Turns):
        def forward(self, *args, **kwargs):
            return tuple(value * (1 + 1e-15) for value in super().forward(*args, **kwargs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "Turns", Noisy)
        report = relax(model, "any", example_input=SEQUENCE, registry=registry).report
    assert report.exact
    assert any("amplifies rounding" in note for note in report.notes)


def test_layers_of_one_size_of_one_tensor_stay_refused_otherwise():
    class Pair(nn.Conv1d):
        def forward(self, x):
            return super().forward(x), x

    for call in (lambda self, x: self.c(x)[0], lambda self, x: self.c(x=x)[0]):
        with pytest.raises(SurgeryError, match="it is given a Tensor and returns a tuple, not a tensor for a tensor"):
            relax(Network(call, c=Pair(6, 2, 3)), "lcn", example_input=SEQUENCE.float())


def test_an_output_that_can_be_looked_at_once_is_refused(registry):
    class Halves(nn.Linear):
        def forward(self, x):
            return (half for half in super().forward(x).chunk(2, -1))

    with pytest.raises(SurgeryError, match="it returns a generator, which can be looked at only once"):
        relax(Network(lambda self, x: sum(self.layer(x)), layer=Halves(5, 4)).double(), "any", example_input=X, registry=registry)


def test_a_block_that_is_called_three_times_goes_as_a_whole_and_the_rest_has_nothing_to_relax(registry):
    model = tied()
    relaxed = relax(model, "turns", example_input=X, registry=registry)
    assert [(site.path, site.calls) for site in SITES] == [("block", 3)]
    assert relaxed.report.idle == {"": "it is called once", "head": "it is called once"}
    assert relaxed.report.exact
    assert len(relaxed.model.block.copies) == 3
    assert set(relaxed.parameter_map["block.0.weight"]) >= {f"block.copies.{turn}.0.weight" for turn in range(3)}
    for _ in range(2):  # each pass begins anew
        torch.testing.assert_close(relaxed.model(X), model(X), rtol=0, atol=0)
    relaxed.model(X).sum().backward()
    gradients = [relaxed.model.block.copies[turn][0].weight.grad for turn in range(3)]
    model(X).sum().backward()
    torch.testing.assert_close(sum(gradients), model.block[0].weight.grad)


def test_a_call_too_many_in_a_pass_is_an_error_of_the_layer(registry):
    model = relax(tied(), "turns", example_input=X, registry=registry).model
    model(X)
    with pytest.raises(ValueError, match="call 4 of 3 in one pass"):
        model.block(X)


def test_parts_of_a_layer_can_be_relaxed_where_the_whole_is_excluded(registry):
    relaxed = relax(tied(), "turns", example_input=X, layers=["*", "!block"], registry=registry)
    assert [layer.path for layer in relaxed.report.layers] == ["block.0", "block.1", "block.2"]
    assert relaxed.report.exact


def test_another_number_of_calls_in_the_other_mode_is_refused_where_it_matters(registry):
    def forward(self, x):
        for _ in range(3 if self.training else 2):
            x = self.layer(x)
        return x

    model = Network(forward, layer=nn.Linear(5, 5)).double()
    for mode in (True, False):
        with pytest.raises(SurgeryError, match="layer cannot be relaxed: it is called 2 and 3 times in a pass, in training and in evalua"):
            relax(model.train(mode), "turns", example_input=X, layers="layer", registry=registry)
    convolution = Network(forward, layer=nn.Conv1d(6, 6, 3, padding=1)).double()
    assert relax(convolution, "lcn", example_input=SEQUENCE).report.exact


class TiedParts(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 5), nn.Linear(5, 5)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


def test_parameters_that_are_tied_inside_of_a_layer_go_with_it_and_across_its_border_it_is_refused(registry):
    model = Network(thrice, block=TiedParts(), head=nn.Linear(5, 2)).double()
    relaxed = relax(model, "turns", example_input=X, registry=registry)
    assert relaxed.report.exact
    assert [layer.path for layer in relaxed.report.layers] == ["block"]
    first = relaxed.model.block.copies[0]
    assert first.a.weight is first.b.weight
    model.head.weight = model.block.b.bias = nn.Parameter(torch.randn(5, dtype=torch.float64))
    model.function = lambda self, x: thrice(Network(None, block=self.block, head=nn.Identity()), x) * self.head.weight
    with pytest.raises(SurgeryError, match="block cannot be relaxed: it shares a parameter with head"):
        relax(model, "turns", example_input=X, layers="block", registry=registry)


def test_a_module_that_also_stands_elsewhere_crosses_the_border(registry):
    block = nn.Sequential(nn.Linear(5, 5))
    model = Network(lambda self, x: self.other(thrice(self, x)), block=block, head=nn.Identity(), other=block[0]).double()
    with pytest.raises(SurgeryError, match="block cannot be relaxed: it shares a parameter with other"):
        relax(model, "turns", example_input=X, layers="block", registry=registry)
    twice = Network(lambda self, x: self.again(self.block(x)), block=block, again=block).double()
    relaxed = relax(twice, "turns", example_input=X, registry=registry)
    assert relaxed.report.exact
    assert relaxed.model.block is relaxed.model.again


def test_a_part_that_is_called_from_outside_of_its_layer_refuses_the_layer(registry):
    model = tied()
    model.function = lambda self, x: thrice(self, x).sum() + self.block[0](x).sum()
    with pytest.raises(SurgeryError, match="block cannot be relaxed: its weight is used outside of it"):
        relax(model, "turns", example_input=X, layers="block", registry=registry)


def pruned(understood: bool) -> nn.Module:
    model = tied()
    model.block = nn.Linear(5, 5).double()
    if understood:
        model.block.understood = True
    random_unstructured(model.block, "weight", 0.5)
    return model


def test_modules_with_hooks_are_the_affair_of_a_relaxation_that_understands_them(registry):
    with pytest.raises(SurgeryError, match="block cannot be relaxed: it has hooks"):
        relax(pruned(False), "turns", example_input=X, registry=registry)
    model = pruned(True)
    assert relax(model, "turns", example_input=X, registry=registry).report.exact
    expected, optimizer = model(X), torch.optim.SGD(model.parameters(), lr=0.1)
    switched = switch(model, optimizer, "turns", example_input=X, registry=registry)
    torch.testing.assert_close(switched.model(X), expected, rtol=0, atol=0)
    assert isinstance(model.block, Turns)


def hooks(model: nn.Module) -> int:
    return sum(hook is begin_pass for hook in model._forward_pre_hooks.values())


def test_passes_are_told_once_wherever_the_network_goes(registry, tmp_path):
    base = tied()
    model = relax(base, "turns", example_input=X, registry=registry).model
    assert (hooks(base), hooks(model)) == (0, 1)
    assert hooks(copy.deepcopy(model)) == 1
    assert hooks(reapply(base, applied_relaxations(model), registry=registry)) == 1
    assert hooks(relax(model, "any", example_input=X, layers="head", registry=registry).model) == 1
    assert hooks(project(model)) == 0
    both = relax(model, "any", example_input=X, layers="head", registry=registry).model
    assert hooks(project(both, layers="head")) == 1
    model.function = None
    assert hooks(pickle.loads(pickle.dumps(model))) == 1


def test_the_root_can_be_such_a_layer_itself(registry):
    layer = relax(nn.Linear(5, 5).double(), "any", example_input=X, registry=registry).model
    assert hooks(layer) == 1
    for _ in range(2):
        layer(X)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    assert type(switch_back(layer, optimizer).model) is nn.Linear
    assert hooks(layer) == 0


def test_a_switch_in_place_tells_passes_and_the_way_back_does_not(registry):
    model = tied()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    expected = model(X)
    switch(model, optimizer, "turns", example_input=X, optimizer_state="carry", registry=registry)
    for _ in range(3):
        torch.testing.assert_close(model(X), expected, rtol=0, atol=0)
    assert hooks(model) == 1
    switch_back(model, optimizer)
    assert hooks(model) == 0


def test_a_file_says_how_often_layers_are_called(registry, tmp_path, monkeypatch):
    monkeypatch.setattr("anarch_core.checkpoint.network.get_registry", lambda: registry)
    monkeypatch.setattr("anarch_core.relaxation.verbs.get_registry", lambda: registry)
    base = tied()
    model = relax(base, "turns", example_input=X).model
    (record,) = applied_relaxations(model)
    assert (record.layers, record.calls) == ({"block": (5,)}, {"block": 3})
    for name, parent in {"whole": None, "delta": base}.items():
        save(model, tmp_path / name, parent=parent)
        again = load(tmp_path / name, model=tied())
        torch.testing.assert_close(again(X), model(X), rtol=0, atol=0)
        assert applied_relaxations(again) == (record,)
        assert hooks(again) == 1
    for calls in (1, 2**40, "3"):
        model.anarch_relaxations = (attrs.evolve(record, calls={"block": calls}),)
        save(model, tmp_path / "odd")
        with pytest.raises(CheckpointError, match="does not follow the checkpoint schema"):
            load(tmp_path / "odd", model=tied())
    model.anarch_relaxations = (attrs.evolve(record, calls={"block": 4}),)
    save(model, tmp_path / "more")
    with pytest.raises(CheckpointError, match="is a layer of 196 parameters"):
        load(tmp_path / "more", model=tied())


def test_plans_and_reports_of_layers_without_a_size_can_be_read(registry):
    report = plan(tied(), "turns", example_input=X, registry=registry)
    assert "block" in str(report)
    assert "nothing to relax in the network, head: it is called once" in str(report)
