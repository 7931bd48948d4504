"""A wrong relaxation is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from anarch_core import scaffold
from anarch_core.lattice import AbstractFamily, ConvGeometry, Drift
from anarch_core.lattice.families import FullyConnected
from anarch_core.layers import FullyConnectedLayer, LatticeLayer
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.relaxation import AbstractLatticeRelaxation, Cost
from anarch_core.testing import RelaxationConformance

Kit = Callable[..., Any]


@pytest.fixture(scope="module")
def gains(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """The relaxation that 'anarch plugins new' writes: correct, and short enough to break."""
    folder = tmp_path_factory.mktemp("gains")
    root = scaffold.create("gains-to-break", "relaxation", folder, registry=get_registry())
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root)
        from anarch_gains_to_break import options, relaxation  # type: ignore[import-not-found]

        yield SimpleNamespace(
            Layer=relaxation.GainsToBreakLayer, Relaxation=relaxation.GainsToBreakRelaxation, Options=options.GainsToBreakOptions
        )
        for name in [name for name in sys.modules if name.startswith("anarch_gains_to_break")]:
            del sys.modules[name]


def broken_relaxation(gains: SimpleNamespace, layer: Mapping[str, Any], relaxation: Mapping[str, Any]) -> type:
    """The relaxation with some methods of its layer and of itself replaced."""
    layer_class = type("Layer", (gains.Layer,), {"relaxation": "wrong", **layer})

    def lift(self: Any, site: Any) -> nn.Module:
        made = gains.Relaxation.lift(self, site)
        made.__class__ = layer_class
        after = relaxation.get("after_lift")
        if after is not None:
            after(made, site)
        return made

    return type("Wrong", (gains.Relaxation,), {"lift": lift, **{name: value for name, value in relaxation.items() if name != "after_lift"}})


@torch.no_grad()
def _scale_gain(layer: Any, site: Any) -> None:
    layer.gain.mul_(1 + 1e-6)


def _share_weight(layer: Any, site: Any) -> None:
    layer.weight = site.module.weight


def _random_gain(layer: Any, site: Any) -> None:
    layer.register_buffer("noise", torch.rand(3))


@torch.no_grad()
def _frozen_gain(layer: Any, site: Any) -> None:
    layer.gain.requires_grad_(False)


def _single_precision(layer: Any, site: Any) -> None:
    layer.gain.data = layer.gain.data.float()


def _evaluation(layer: Any, site: Any) -> None:
    layer.eval()


def _mode_of_the_parent(layer: Any, site: Any) -> None:
    site.module.eval()


def _no_parameters(layer: Any, site: Any) -> None:
    for name, parameter in list(layer.named_parameters()):
        delattr(layer, name)
        layer.register_buffer(name, parameter.detach())


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.clone()


class _KeepsOutput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * (ctx.saved_tensors[0] != torch.inf)


def _forward_kept(self: Any, x: torch.Tensor) -> torch.Tensor:
    return _KeepsOutput.apply(type(self).__mro__[1].forward(self, x))


def _forward_once(self: Any, x: torch.Tensor) -> torch.Tensor:
    return _Once.apply(type(self).__mro__[1].forward(self, x))


class _ByHand(torch.autograd.Function):
    """Right, and known to neither vmap nor jvp."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient.clone()


class _WrongForwards(_ByHand):
    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, tangent: torch.Tensor) -> torch.Tensor:
        return 2 * tangent


def _forward_by_hand(self: Any, x: torch.Tensor) -> torch.Tensor:
    return _ByHand.apply(type(self).__mro__[1].forward(self, x))


def _forward_wrong_forwards(self: Any, x: torch.Tensor) -> torch.Tensor:
    return _WrongForwards.apply(type(self).__mro__[1].forward(self, x))


def _forward_of_something(self: Any, x: torch.Tensor) -> torch.Tensor:
    if not len(x):
        msg = "nothing to do"
        raise ValueError(msg)
    return type(self).__mro__[1].forward(self, x)


def _forward_by_layout(self: Any, x: torch.Tensor) -> torch.Tensor:
    flat = x.as_strided((x.numel(),), (1,)).view(x.shape)  # as if every input were contiguous
    return type(self).__mro__[1].forward(self, flat)


def _forward_batches(self: Any, x: torch.Tensor) -> torch.Tensor:
    if x.ndim == 3 and x.shape[0] == 2 and len(self.geometry.axes) == 2:
        msg = "a batch, please"
        raise ValueError(msg)
    return type(self).__mro__[1].forward(self, x)


RELAXATION_FAULTS = [
    ("test_whole_network", {"after_lift": _mode_of_the_parent}, {}, "relaxing changed the network: training mode of features.first.layer"),
    (
        "test_outputs_may_be_changed_in_place",
        {},
        {"forward": _forward_kept},
        "an activation in place after the layer fails: .*; return a tensor that nothing else needs",
    ),
    (
        "test_empty_batches",
        {},
        {"forward": _forward_of_something},
        "refuses a batch of no samples, which its parent takes: nothing to do",
    ),
    ("test_channels_last", {}, {"forward": _forward_by_layout}, "with the channels last in memory the layer gives something else"),
    ("test_gradients_by_sample", {}, {"forward": _forward_by_hand}, "give autograd functions of your own a vmap rule"),
    ("test_derivatives_forwards", {}, {"forward": _forward_by_hand}, "give autograd functions of your own a jvp rule"),
    ("test_derivatives_forwards", {}, {"forward": _forward_wrong_forwards}, "differs from that of the backward pass by 1.0e"),
    ("test_parameter_map_is_total", {"after_lift": _no_parameters}, {}, "features.first.layer.weight.* of the parent has no heir"),
    ("test_is_twice_differentiable", {}, {"forward": _forward_once}, "write the backward pass in differentiable operations"),
    ("test_single_inputs", {}, {"forward": _forward_batches}, "refuses one input without batch dimension, which its parent takes: a batch"),
    (
        "test_drift_of_a_fresh_layer_is_nothing",
        {},
        {"drift": lambda self, reference=None: Drift(shared=1.0, unshared=1.0, off_local=0.0)},
        "of a fresh layer finds 1.0e.00 unshared",
    ),
    ("test_copies_are_independent", {}, {"__deepcopy__": lambda self, memo: self}, "copy.deepcopy of the layer shares memory with it"),
    ("test_equals_its_parent", {"after_lift": _scale_gain}, {}, r"differs from its parent by 1\.0e-06, more than 1e-10; correct the lift"),
    ("test_parent_is_untouched", {"after_lift": _share_weight}, {}, "shares memory with its parent; clone its tensors in lift"),
    (
        "test_lift_draws_no_random_numbers",
        {"after_lift": _random_gain},
        {},
        "changes the random state of torch; draw from a torch.Generator",
    ),
    ("test_leaves_the_constrained_family", {"after_lift": _frozen_gain}, {}, "the switch is a saddle point. Break the symmetry"),
    (
        "test_dtype_is_kept",
        {"after_lift": _single_precision},
        {},
        r"gain is torch.float32 where the parent is torch.bfloat16; make tensors",
    ),
    (
        "test_mode_is_kept",
        {"after_lift": _evaluation},
        {},
        r"lift\(\) gives training=False; end it with layer.train\(site.module.training\)",
    ),
    ("test_refusals_are_sentences", {"refusal": lambda self, site: "no"}, {}, "narrow `dims`, or accept more"),
    (
        "test_cost_is_what_is_allocated",
        {"cost": lambda self, site: Cost(parameters=1, flops=1)},
        {},
        r"cost\(\) says 1 parameters, the layer has",
    ),
    (
        "test_cost_allocates_nothing",
        {"cost": lambda self, site: Cost(parameters=torch.zeros(3000, 3000).numel(), flops=1)},
        {},
        r"cost\(\) made a tensor of 9000000 numbers; work it out from the sizes",
    ),
    (
        "test_optimizer_state_fits",
        {"transport": lambda self, site, layer, name, tensor, role: {"gain": tensor}},
        {},
        r"transport\('weight', role='weight'\) gives gain .*, expected",
    ),
    (
        "test_drift_parts_are_squared_norms",
        {},
        {"drift": lambda self, reference=None: Drift(shared=1.0, unshared=-1.0, off_local=0.0)},
        r"layer, relaxed by wrong: the part 'unshared' of its drift\(\) is -1, and a squared norm is not negative",
    ),
    (
        "test_split_parts_add_up",
        {},
        {"split": lambda self, tensor, name: (tensor, tensor, tensor)},
        "the parts of weight do not add up to it",
    ),
    (
        "test_split_parts_add_up",
        {},
        {"keep": lambda self, tensor, parts, name="weight": tensor.clone()},
        r"keep\(..., \(\), 'weight'\) is not the sum of these parts of split\(\)",
    ),
    ("test_reset_depends_on_the_seed_alone", {}, {"reset_parameters": lambda self: None}, "leaves something of the old"),
    (
        "test_projection_undoes_the_lift",
        {},
        {"project": lambda self: self.geometry.convolution(self.weight).double().requires_grad_(False)},
        r"project\(\) of a fresh layer differs from the parent",
    ),
]


@pytest.mark.parametrize(("check", "relaxation", "layer", "message"), RELAXATION_FAULTS, ids=[fault[0] for fault in RELAXATION_FAULTS])
def test_a_wrong_relaxation(fails: Kit, plugin: Kit, gains: SimpleNamespace, check: str, relaxation: Any, layer: Any, message: str) -> None:
    plugin("relaxation", broken_relaxation(gains, layer, relaxation), options=gains.Options)
    fails(RelaxationConformance, check, message, examples=8)


class _InputsFirst(FullyConnectedLayer):
    """The eFCN with its weight stored [inputs, outputs], and the drift of the other layout: it reads rows that are columns."""

    @classmethod
    def weight_shape(cls, family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
        return super().weight_shape(family, geometry)[::-1]

    def weight_view(self, tensor: torch.Tensor) -> torch.Tensor:
        return super().weight_view(tensor.mT)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, single = self.batched(x)
        y = nn.functional.linear(batch.flatten(1), self.weight.mT, self.bias)
        y = y.reshape(len(y), self.geometry.out_channels, *self.geometry.output_size)
        return y.squeeze(0) if single else y


class _InputsFirstRight(_InputsFirst):
    off_local_norm2 = LatticeLayer.off_local_norm2


def test_a_drift_that_reads_another_layout(fails: Kit, passes: Kit, plugin: Kit) -> None:
    for layer_class in (_InputsFirst, _InputsFirstRight):
        relaxation = type("Wrong", (AbstractLatticeRelaxation,), {"layer_class": layer_class, "family": FullyConnected(name="wrong")})
        plugin("relaxation", relaxation)
        if layer_class is _InputsFirst:
            fails(RelaxationConformance, "test_drift_parts_are_squared_norms", "but the projection, lifted again, has a squared norm of")
        else:
            for check in ("test_drift_parts_are_squared_norms", "test_split_parts_add_up", "test_projection_undoes_the_lift"):
                passes(RelaxationConformance, check, examples=5)


@pytest.mark.parametrize("check", [fault[0] for fault in RELAXATION_FAULTS])
def test_the_relaxation_is_right_where_nothing_is_broken(passes: Kit, plugin: Kit, gains: SimpleNamespace, check: str) -> None:
    plugin("relaxation", broken_relaxation(gains, {}, {}), options=gains.Options)
    passes(RelaxationConformance, check, examples=5)


def test_an_inexact_relaxation_that_calls_itself_exact(fails: Kit, plugin: Kit, gains: SimpleNamespace) -> None:
    plugin("relaxation", broken_relaxation(gains, {}, {}), options=gains.Options, tolerance=0.1)
    fails(RelaxationConformance, "test_record_states_its_exactness", "a tolerance of 0.1 in float64 is not exact; write exact=False")


def test_a_lift_that_cannot_be_repeated(fails: Kit, plugin: Kit, gains: SimpleNamespace, tmp_path: Path) -> None:
    plugin("relaxation", broken_relaxation(gains, {}, {"after_lift": _random_gain}), options=gains.Options)
    fails(RelaxationConformance, "test_checkpoint_of_a_fresh_lift", "relaxing the parent does not give the model", tmp_path)


@pytest.mark.slow
def test_a_layer_that_is_more_than_its_state(fails: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process cannot know is found by asking one."""
    root = scaffold.create("wrong", "relaxation", tmp_path, registry=get_registry())
    file = root / "anarch_wrong" / "relaxation.py"
    text = file.read_text()
    broken = text.replace(
        "        # new_ones keeps",
        '        self.register_buffer("hidden", 1 + 1e-12 * self.weight.detach().mean(), persistent=False)\n        # new_ones keeps',
    ).replace("y = self.gain * y", "y = self.gain * self.hidden * y")
    assert broken.count("hidden") == 2
    file.write_text(broken)
    info = tmp_path / "anarch_wrong-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: anarch-wrong\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[anarch.plugins]\nwrong = anarch_wrong\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(root)
    registry = Registry.load()
    monkeypatch.setattr("anarch_core.testing.component.get_registry", lambda: registry)
    message = "another process loads computes something else; hold all that is not rebuilt"
    fails(RelaxationConformance, "test_checkpoint_in_a_fresh_process", message, tmp_path)
