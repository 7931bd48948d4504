"""The conformance kit fails what is wrong, and says what to mend.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import attrs
import pytest
import torch
from torch import nn

from anarch_core import scaffold
from anarch_core.data import TensorData
from anarch_core.errors import AnarchError
from anarch_core.lattice import AbstractFamily, ConvGeometry, Drift
from anarch_core.lattice.families import FullyConnected
from anarch_core.layers import FullyConnectedLayer, LatticeLayer
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.options import opt
from anarch_core.plugin.records import DatasetInfo, FigureInfo, ModelInfo, OptimizerInfo, ProbeInfo, RelaxationInfo, ScheduleInfo
from anarch_core.plugin.registry import Registry, get_registry
from anarch_core.probe.base import AbstractProbe, Measurement
from anarch_core.relaxation import AbstractLatticeRelaxation, Cost
from anarch_core.report import AbstractFigure, Table, each_run, grid, points, probed, require_probes, styled
from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_core.testing import (
    DatasetConformance,
    FigureConformance,
    ModelConformance,
    OptimizerConformance,
    ProbeConformance,
    RelaxationConformance,
    ScheduleConformance,
)

pytest_plugins = ["pytester"]

INFOS = {info.kind: info for info in (RelaxationInfo, ProbeInfo, ModelInfo, DatasetInfo, ScheduleInfo, OptimizerInfo, FigureInfo)}
Kit = Callable[..., Any]


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Registry]]:
    """A registry with one component more: a record whose target is the given object."""

    def register(kind: str, target: Any, /, **record: Any) -> Registry:
        module = ModuleType("wrong_plugin")
        module.target = target  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "wrong_plugin", module)
        fields = {"name": "wrong", "summary": "A component with one fault.", "target": "wrong_plugin:target"} | record
        info = INFOS[kind](**fields)
        added = PluginRecord(
            name="wrong", module="wrong_plugin", distribution="anarch-wrong", version="1.0", status=Status.LOADED, components=(info,)
        )
        registry = Registry((*get_registry().plugins, added))
        monkeypatch.setattr("anarch_core.testing.component.get_registry", lambda: registry)
        for module in ("checkpoint.network", "relaxation.verbs"):
            monkeypatch.setattr(f"anarch_core.{module}.get_registry", lambda: registry)
        return registry

    return register


def fails(conformance: type, check: str, message: str, *arguments: Any, **settings: Any) -> None:
    """Assert that the check fails with a message."""
    kit = type("TestWrong", (conformance,), {"name": "wrong", **settings})()
    with pytest.raises((AssertionError, AnarchError), match=message):
        getattr(kit, check)(*arguments)


def passes(conformance: type, check: str, *arguments: Any, **settings: Any) -> None:
    """Assert that the check does not fail."""
    getattr(type("TestRight", (conformance,), {"name": "wrong", **settings})(), check)(*arguments)


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


def _forward_once(self: Any, x: torch.Tensor) -> torch.Tensor:
    return _Once.apply(type(self).__mro__[1].forward(self, x))


def _forward_batches(self: Any, x: torch.Tensor) -> torch.Tensor:
    if x.ndim == 3 and x.shape[0] == 2 and len(self.geometry.axes) == 2:
        msg = "a batch, please"
        raise ValueError(msg)
    return type(self).__mro__[1].forward(self, x)


RELAXATION_FAULTS = [
    ("test_whole_network", {"after_lift": _mode_of_the_parent}, {}, "relaxing changed the network: training mode of features.first"),
    ("test_parameter_map_is_total", {"after_lift": _no_parameters}, {}, "features.first.weight.* of the parent has no heir"),
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
        r"drift\(\).unshared is a squared norm, not -1.0",
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
def test_a_wrong_relaxation(plugin: Kit, gains: SimpleNamespace, check: str, relaxation: Any, layer: Any, message: str) -> None:
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


def test_a_drift_that_reads_another_layout(plugin: Kit) -> None:
    for layer_class in (_InputsFirst, _InputsFirstRight):
        relaxation = type("Wrong", (AbstractLatticeRelaxation,), {"layer_class": layer_class, "family": FullyConnected(name="wrong")})
        plugin("relaxation", relaxation)
        if layer_class is _InputsFirst:
            fails(RelaxationConformance, "test_drift_parts_are_squared_norms", "but the layer's matrix has a squared norm of", examples=8)
        else:
            for check in ("test_drift_parts_are_squared_norms", "test_split_parts_add_up", "test_projection_undoes_the_lift"):
                passes(RelaxationConformance, check, examples=5)


@pytest.mark.parametrize("check", [fault[0] for fault in RELAXATION_FAULTS])
def test_the_relaxation_is_right_where_nothing_is_broken(plugin: Kit, gains: SimpleNamespace, check: str) -> None:
    plugin("relaxation", broken_relaxation(gains, {}, {}), options=gains.Options)
    passes(RelaxationConformance, check, examples=5)


class Norm(AbstractProbe):
    headline = ("norm",)

    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": float(sum(p.detach().norm() for p in context.model.parameters()))})


class Disturbing(Norm):
    def measure(self, context: Any) -> Measurement:
        context.model.eval()
        return super().measure(context)


class Drawing(Norm):
    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": torch.rand(()).item()})


class Tensorial(Norm):
    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": torch.ones(())})  # type: ignore[dict-item]


class NotJson(Norm):
    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={}, details={"loss": float("nan")})


class Demanding(Norm):
    def measure(self, context: Any) -> Measurement:
        return Measurement(scalars={"norm": float(context.data.x_train.norm())})


class Inventive(Norm):
    needs = frozenset({"gradient"})


class Overdone(Norm):
    def measure(self, context: Any) -> Measurement:
        context.progress(3, 1, "norm")
        return super().measure(context)


class Undemanding(Norm):
    needs = frozenset({"data"})


class DemandingInSilence(Demanding):
    needs = frozenset({"data"})


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (Disturbing, "test_leaves_everything_as_it_was", "changed the model: training mode of .*; measure inside 'with undisturbed"),
        (
            Drawing,
            "test_leaves_everything_as_it_was",
            "changed the random state of torch; draw from a torch.Generator seeded with context.seed",
        ),
        (Drawing, "test_is_a_function_of_the_seed", "scalars norm differ between two measurements"),
        (Tensorial, "test_measurement_is_valid", "scalar 'norm' must be a finite float, or None"),
        (NotJson, "test_measurement_is_valid", "`details` must be JSON-ready"),
        (NotJson, "test_headline_is_measured", r"`headline` names norm, which measure\(\) does not give"),
        (Demanding, "test_what_it_needs_is_enough", "it raised AttributeError.*; add what it cannot do without to `needs`"),
        (Undemanding, "test_refuses_what_lacks_its_needs", "`needs` names 'data', but the probe does without it"),
        (DemandingInSilence, "test_refuses_what_lacks_its_needs", "raise ProbeError with one line .*; it raised AttributeError"),
        (Inventive, "test_declares_what_it_needs", "`needs` may hold data, parent, reference, relaxed, not gradient"),
        (Overdone, "test_reports_progress_as_documented", r"progress is called with \(done, total, what\), not \(3, 1, 'norm'\)"),
        (Disturbing, "test_target_is_what_its_kind_promises", "Disturbing inherits from Norm, which can be used itself"),
    ],
)
def test_a_wrong_probe(plugin: Kit, target: type, check: str, message: str) -> None:
    plugin("probe", target)
    fails(ProbeConformance, check, message)


def _dead_end(input_shape: Any, classes: int, options: Any) -> nn.Module:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, classes))
    model.unused = nn.Parameter(torch.zeros(3))
    return model


def _seeded(input_shape: Any, classes: int, options: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, classes))


def _headless(input_shape: Any, classes: int, options: Any) -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, 10))


def _dense(input_shape: Any, classes: int, options: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))


def _resting(input_shape: Any, classes: int, options: Any) -> nn.Module:
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, classes)).eval()


def _crowded(input_shape: Any, classes: int, options: Any) -> nn.Module:
    norm = nn.BatchNorm1d(2, track_running_stats=False)
    return nn.Sequential(nn.Conv1d(1, 2, 3), norm, nn.Flatten(), nn.Linear(28, classes))


def _abrupt(input_shape: Any, classes: int, options: Any) -> nn.Module:
    conv = {2: nn.Conv1d}[len(input_shape)]
    return nn.Sequential(conv(1, 2, 3), nn.Flatten(), nn.Linear(28, classes))


class _Hidden(nn.Sequential):
    """Holds a number that is in no state dict."""

    def __init__(self, classes: int) -> None:
        super().__init__(nn.Conv1d(1, 2, 3), nn.Flatten(), nn.Linear(28, classes))
        self.scale = torch.rand(()).item()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scale * super().forward(x)


class _Single(_Hidden):
    """Is its own copy."""

    def __deepcopy__(self, memo: Any) -> _Single:
        return self


def _without_options(input_shape: Any, classes: int) -> None: ...


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (_dead_end, "test_gradients_reach_every_parameter", "no gradient reaches unused; use it in forward"),
        (_seeded, "test_weights_depend_on_the_seed_alone", "do not seed in build"),
        (_dense, "test_has_something_to_relax", "efcn finds no layer to relax; use nn.Conv1d"),
        (_headless, "test_gives_one_row_of_logits_per_input", r"gives \(2, 10\) for two inputs .*, expected a tensor of \(2, 11\)"),
        (_resting, "test_is_fresh", r"the model is in evaluation mode; build\(\) gives a network to be trained"),
        (_crowded, "test_evaluation_is_a_function", "an output depends on the other samples of its batch"),
        (_abrupt, "test_refuses_inputs_that_do_not_fit", "it raised KeyError: 3; raise anarch_core.errors.ConfigError"),
        (lambda shape, classes, options: _Single(classes), "test_can_be_copied", "copy.deepcopy of the model shares memory"),
        (_without_options, "test_target_is_what_its_kind_promises", r"called as target\(input_shape, classes, options\)"),
    ],
)
def test_a_wrong_model(plugin: Kit, target: Any, check: str, message: str) -> None:
    plugin("model", target)
    fails(ModelConformance, check, message, input_shape=(1, 16))


@attrs.frozen(kw_only=True)
class Choice:
    """Which model."""

    model: str = attrs.field(metadata=opt("Which."))


@attrs.frozen(kw_only=True)
class Size:
    """How large."""

    model: int = attrs.field(metadata=opt("How large."))


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["a", "a"], Choice, "the zoo gives a more than once"),
        ([1, 2], Size, "the zoo gives 1, which the option 'model' reads as None"),
        (["1", "2"], Size, "the zoo gives '1', which the option 'model' reads as 1; name what it chooses from"),
        (["b", "c"], Choice, "the zoo does not give 'a', the model that `options` of TestWrong names"),
        (None, Choice, "cannot list 'wrong_plugin:names': TypeError"),
    ],
)
def test_a_wrong_zoo(plugin: Kit, names: Any, options: type, message: str) -> None:
    plugin("model", _dense, options=options, zoo="wrong_plugin:names")
    sys.modules["wrong_plugin"].names = lambda: names  # type: ignore[attr-defined]
    fails(ModelConformance, "test_zoo_names_its_models", message, options={"model": "a"})


def test_a_model_that_is_more_than_its_state(plugin: Kit, tmp_path: Path) -> None:
    plugin("model", lambda shape, classes, options: _Hidden(classes))
    message = "a saved and loaded network computes something else; hold its state in parameters and buffers"
    fails(ModelConformance, "test_is_rebuilt_from_a_checkpoint", message, tmp_path, input_shape=(1, 16))


def tensors(**changed: Any) -> Callable[..., TensorData]:
    """A target that gives data with some fields replaced."""

    def load(root: Path | None, options: Any) -> TensorData:
        x = torch.randn(12, 1, 8, generator=torch.Generator().manual_seed(0))
        y = torch.arange(12) % 3
        data = TensorData(name="wrong", x_train=x, y_train=y, x_test=x.clone(), y_test=y.clone(), classes=3)
        return attrs.evolve(data, **{name: value(data) for name, value in changed.items()})

    return load


@pytest.mark.parametrize(
    ("target", "record", "check", "message"),
    [
        (tensors(y_train=lambda data: data.y_train + 1), {}, "test_can_be_trained_on", "labels go from 1 to 3, expected 0 to 2"),
        (tensors(classes=lambda data: 5), {}, "test_can_be_trained_on", "no training sample is of class 3, 4"),
        (
            tensors(x_train=lambda data: data.x_train * 80 + 128),
            {},
            "test_inputs_are_normalised",
            "normalise them, e.g. with channel_statistics",
        ),
        (
            tensors(x_train=lambda data: torch.randn(12, 1, 8)),
            {},
            "test_is_the_same_every_time",
            "loading changes the random state of torch",
        ),
        (tensors(name=lambda data: "other"), {}, "test_names_are_right", "call themselves 'other', the record 'wrong'"),
        (tensors(), {"defaults": {"epoch": 3}}, "test_defaults_are_settings", "`defaults` sets epoch; it may set"),
        (tensors(), {"defaults": {"model": "cnn2d"}}, "test_defaults_are_settings", "unknown model 'cnn2d'; did you mean 'cnn1d'"),
        (tensors(), {"defaults": {"model": "resnet20"}}, "test_default_model_takes_the_data", "resnet20 takes images"),
    ],
)
def test_a_wrong_data_set(plugin: Kit, target: Any, record: Any, check: str, message: str) -> None:
    plugin("dataset", target, **record)
    fails(DatasetConformance, check, message)


def test_missing_data_that_raise_anything(plugin: Kit, tmp_path: Path) -> None:
    plugin("dataset", lambda root, options: (root / "x.npy").read_bytes())
    fails(DatasetConformance, "test_missing_data_are_told_in_one_line", "raised FileNotFoundError.*; raise DataError", tmp_path)


class Never(AbstractSchedule):
    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        return ()

    def switches_now(self, history: Any) -> bool:
        return False


class Outside(Never):
    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        return (Moment(clock.iterations + 1, clock.iterations_per_epoch),)


class Fickle(Never):
    calls = 0

    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        self.calls += 1
        return (Moment(min(self.calls, clock.iterations), clock.iterations_per_epoch),)


class Counting(Never):
    calls = 0

    def switches_now(self, history: Any) -> bool:
        self.calls += 1
        return self.calls == 3


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (Never, "test_switches_at_all", r"the schedule never switches: moments\(\) is empty"),
        (Outside, "test_moments_lie_on_the_trunk", "lies outside the trunk of 1 steps; leave it out, or raise ConfigError"),
        (Fickle, "test_moments_depend_on_the_clock_alone", "it gives other moments; .* or a resumed run switches elsewhere"),
        (Counting, "test_switches_depend_on_the_history_alone", "keep nothing on self: a resumed run starts with a fresh instance"),
    ],
)
def test_a_wrong_schedule(plugin: Kit, target: type, check: str, message: str) -> None:
    plugin("schedule", target)
    fails(ScheduleConformance, check, message)


class Unshared(AbstractFigure):
    """What every probe gives: a correct figure."""

    @styled
    def draw(self, runs: Any, *, narrow: bool = False) -> Any:
        require_probes(runs, "delta")

        def panel(axes: Any, run: Any, colours: Any) -> None:
            for series in run.series:
                found = {switch: probed(group, "delta", "end", "unshared") for switch, group in series.branches.items()}
                points(axes, list(found), list(found.values()), color=colours[series.relaxation], label=series.relaxation)

        return each_run(runs, [panel], narrow=narrow)

    def caption(self, runs: Any) -> str:
        return "The unshared part."


def drawing(figure: type, **methods: Any) -> type:
    return type("Figure", (figure,), methods)


def _blank(self: Any, runs: Any, *, narrow: bool = False) -> Any:
    return grid(1, 1, narrow=narrow)[0]


def _first_run(self: Any, runs: Any, *, narrow: bool = False) -> Any:
    figure, [[axes]] = grid(1, 1, narrow=narrow)
    axes.plot([segment.scalars("delta", "end")["unshared"] for run in runs for segment in run.segments("branch")])
    return figure


def _with_settings(self: Any, runs: Any, *, narrow: bool = False) -> Any:
    import matplotlib as mpl

    mpl.rcParams["font.size"] = 6
    return Unshared.draw(self, runs, narrow=narrow)


@pytest.fixture(scope="module")
def drawable(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs with the probe delta, and without."""
    return type("TestDeviation", (FigureConformance,), {"name": "deviation"})().sample(tmp_path_factory.mktemp("drawable"))


@pytest.mark.parametrize(
    ("record", "methods", "check", "message"),
    [
        ({"needs": ("delat",)}, {}, "test_needs_are_probes", "`needs` names delat, which no installed plugin provides"),
        ({}, {"draw": _blank}, "test_is_drawn_wide_and_narrow", "there is nothing in its panels; name all probes that it shows"),
        ({}, {"draw": _first_run}, "test_runs_stand_side_by_side", "of two runs it raised KeyError: 'unshared'; draw what there is"),
        ({}, {"caption": lambda self, runs: ""}, "test_has_a_caption", "the caption is a text of full sentences: ''"),
        ({"needs": ()}, {"draw": _first_run}, "test_says_what_is_missing", "on a run without probes it raised KeyError.*in `needs`"),
        ({}, {"draw": _with_settings}, "test_leaves_settings_of_matplotlib_alone", "drawing changed the settings font.size; decorate"),
        ({}, {"draw": Unshared.draw.__wrapped__}, "test_leaves_settings_of_matplotlib_alone", "not the same figure under other settings"),
        ({}, {"findings": lambda self, series: "It went."}, "test_what_it_says_is_valid", "gives a list of full sentences"),
        (
            {},
            {"tables": lambda self, run: [Table(caption="Drift", headings=["layer", "δ"], rows=[["first"]])]},
            "test_what_it_says_is_valid",
            "Drift: 1 cells under 2 headings",
        ),
    ],
)
def test_a_wrong_figure(plugin: Kit, drawable: Any, record: Any, methods: Any, check: str, message: str) -> None:
    arguments = [drawable] if check != "test_needs_are_probes" else []
    plugin("figure", drawing(Unshared, **methods), **{"title": "Wrong", "needs": ("delta",)} | record)
    fails(FigureConformance, check, message, *arguments)
    plugin("figure", Unshared, title="Right", needs=("delta",))
    passes(FigureConformance, check, *arguments)


class Ascent(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.add_(parameter.grad, alpha=0.01)


class Forgetful(torch.optim.SGD):
    """Remembers outside of its state."""

    count = 0

    def step(self, closure: Any = None) -> None:
        self.count += 1
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(parameter.grad, alpha=group["lr"] / self.count)


class Pushing(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(torch.ones_like(parameter) if parameter.grad is None else parameter.grad, alpha=group["lr"])


class Noisy(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data.sub_(parameter.grad + torch.randn_like(parameter), alpha=group["lr"])


class Halving(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data.half()


def of(cls: type) -> Callable[..., torch.optim.Optimizer]:
    """A target that gives an optimizer of the class."""
    return lambda parameters, lr, options: cls([parameter for _, parameter in parameters], lr=lr)


@pytest.mark.parametrize(
    ("target", "check", "message"),
    [
        (of(Ascent), "test_lowers_a_loss", "check the sign of the step"),
        (of(Ascent), "test_obeys_the_learning_rate", r"weights move at a learning rate of 0; read group\['lr'\] in step"),
        (of(Pushing), "test_skips_parameters_without_gradient", "a parameter whose gradient is None was moved; skip it in step"),
        (of(Noisy), "test_is_a_function_of_its_gradients", "keep random numbers out of step"),
        (of(Forgetful), "test_goes_on_from_its_saved_state", r"keep all memory in self.state\[parameter\]"),
        (
            lambda parameters, lr, options: torch.optim.SGD([parameters[0][1]], lr=lr),
            "test_holds_every_parameter_once",
            "it holds 1 parameters of 4",
        ),
    ],
)
def test_a_wrong_optimizer(plugin: Kit, target: Any, check: str, message: str) -> None:
    plugin("optimizer", target)
    fails(OptimizerConformance, check, message)


def _momentum(parameters: Any, lr: float, options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD([parameter for _, parameter in parameters], lr=lr, momentum=0.5)


@pytest.mark.parametrize(
    ("roles", "check", "message"),
    [
        ({}, "test_its_state_has_roles", "it keeps momentum_buffer for a parameter, and `roles` of its record does not say"),
        (
            {"momentum": "gradient", "momentum_buffer": "gradient"},
            "test_roles_are_those_of_its_state",
            "`roles` names momentum, which it does not keep after 60 steps, but momentum_buffer",
        ),
    ],
)
def test_a_wrong_role(plugin: Kit, roles: dict[str, str], check: str, message: str) -> None:
    plugin("optimizer", _momentum, roles=roles)
    fails(OptimizerConformance, check, message)


@attrs.frozen(kw_only=True)
class Undocumented:
    size: int = attrs.field(default=1, metadata=opt("How many."))


@attrs.frozen(kw_only=True)
class Mumbling:
    """Says too little."""

    size: int = attrs.field(default=1, metadata=opt("how many"))


@attrs.frozen(kw_only=True)
class Doubling:
    """Keeps twice what it is given."""

    size: int = attrs.field(default=1, converter=lambda value: 2 * value, metadata=opt("How many."))


@attrs.frozen(kw_only=True)
class Demand:
    """Has no default."""

    size: int = attrs.field(metadata=opt("How many."))


@pytest.mark.parametrize(
    ("record", "check", "message"),
    [
        ({"summary": "no sentence"}, "test_record_is_complete", "`summary` is a sentence and ends with a full stop"),
        ({"options": Undocumented}, "test_options_are_documented", "Undocumented needs a docstring: one line on what is chosen with it"),
        ({"options": Mumbling}, "test_options_are_documented", "the help of Mumbling.size is a sentence: 'how many'"),
        ({"options": Doubling}, "test_options_survive_flags_and_toml", "the class must keep the values it is given"),
        ({"options": Demand}, "test_defaults_are_allowed", "needs a value for 'size'. Mend the default, or give a value in `options`"),
        ({"name": "batch", "options": Doubling}, "test_flags_are_free", "would be --batch-size, a flag of 'anarch run'"),
        ({"axes": {"norn": "norm"}}, "test_headline_is_measured", r"`axes` of the record names norn, which measure\(\) does not give"),
        ({"target": "wrong_plugin:missing"}, "test_target_is_what_its_kind_promises", "Correct `target` of the record"),
        (
            {"name": "efcn"},
            "test_is_registered",
            "the name 'efcn' is used by .*; all kinds but commands and figures share one set of names",
        ),
    ],
)
def test_a_wrong_record(plugin: Kit, record: dict[str, Any], check: str, message: str) -> None:
    plugin("probe", Norm, **record)
    fails(ProbeConformance, check, message, name=record.get("name", "wrong"))


def test_a_component_that_is_not_installed() -> None:
    fails(ProbeConformance, "test_is_registered", r"unknown probe 'wrong'.*project.entry-points.*install the distribution again")


def test_an_import_that_is_not_light(plugin: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "anarch_wrong-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: anarch-wrong\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[anarch.plugins]\nwrong = wrong_plugin\n")
    (tmp_path / "wrong_plugin.py").write_text("import matplotlib\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugin("probe", Norm)
    monkeypatch.setattr("anarch_core.testing.component._imported_by", _imported_by_uncached())
    fails(
        ProbeConformance, "test_import_is_light", "importing wrong_plugin imports .*matplotlib.*import it in the module that `target` names"
    )


def _imported_by_uncached() -> Any:
    from anarch_core.testing.component import _imported_by

    return _imported_by.__wrapped__


def test_an_inexact_relaxation_that_calls_itself_exact(plugin: Kit, gains: SimpleNamespace) -> None:
    plugin("relaxation", broken_relaxation(gains, {}, {}), options=gains.Options, tolerance=0.1)
    fails(RelaxationConformance, "test_record_states_its_exactness", "a tolerance of 0.1 in float64 is not exact; write exact=False")


def test_a_lift_that_cannot_be_repeated(plugin: Kit, gains: SimpleNamespace, tmp_path: Path) -> None:
    plugin("relaxation", broken_relaxation(gains, {}, {"after_lift": _random_gain}), options=gains.Options)
    fails(RelaxationConformance, "test_checkpoint_of_a_fresh_lift", "relaxing the parent does not give the model", tmp_path)


@pytest.mark.slow
def test_a_layer_that_is_more_than_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_every_check_is_shown_to_catch_something() -> None:
    """All but those that need a GPU, and those whose failure is an exception with its own words."""
    own_words = {"test_applying_twice_is_defined"}
    kits = (
        RelaxationConformance,
        ProbeConformance,
        ModelConformance,
        DatasetConformance,
        ScheduleConformance,
        OptimizerConformance,
        FigureConformance,
    )
    checks = {name for kit in kits for name in dir(kit) if name.startswith("test_") and not name.startswith("test_cuda_")}
    assert {check for check in checks if f'"{check}"' not in Path(__file__).read_text().replace("own_words", "")} - own_words == set()


def test_expected_failures_must_fail_and_be_checks(pytester: pytest.Pytester) -> None:
    """A check that is expected to fail and passes is an error; a name that is no check is told at once."""
    pytester.makepyfile(
        """
        from anarch_core.testing import ScheduleConformance

        class TestLog(ScheduleConformance):
            name = "log"
            expected_failures = {"test_switches_at_all": "for once"}

        class TestMissing(ScheduleConformance):
            name = "missing"
            expected_failures = {"test_switches_at_all": "it is not installed"}
        """
    )
    result = pytester.runpytest_inprocess("-k", "test_switches_at_all", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1, xfailed=1)
    result.stdout.fnmatch_lines(["*XPASS(strict)*for once*"])
    with pytest.raises(TypeError, match="names 'test_unknown', which is no check of ScheduleConformance"):
        type("TestLog", (ScheduleConformance,), {"expected_failures": {"test_unknown": "?"}})


def test_what_the_kit_needs_is_told() -> None:
    code = "import sys; sys.modules['hypothesis'] = None; import anarch_core.testing"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the conformance kit needs hypothesis; pip install 'anarch[test]'" in ran.stderr
