"""What a relaxation promises."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, get_args

import hypothesis
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from anarch_core import load, save
from anarch_core.errors import AnarchError, NoEffectWarning, SurgeryError
from anarch_core.layers import Drift, RelaxedLayer
from anarch_core.relaxation import AbstractRelaxation, Cost, Site, TensorRole
from anarch_core.relaxing import Relaxed, applied_relaxations, plan, relax
from anarch_core.testing.component import ComponentConformance, in_fresh_process
from anarch_core.testing.convolutions import CONVOLUTIONS, Case, cases
from anarch_core.testing.snapshot import Snapshot, changed_states, random_states, relative, same_bits

_REBUILD = """
import sys
import torch
from anarch_core import load
folder = sys.argv[1]
torch.set_num_threads(int(sys.argv[2]))
base, x = torch.load(f"{folder}/base.pt", weights_only=False)
with torch.no_grad():
    torch.save(load(f"{folder}/relaxed.safetensors", model=base)(x), f"{folder}/output.pt")
"""

Check = Callable[[Site, torch.Tensor, RelaxedLayer], None]


class RelaxationConformance(ComponentConformance):
    """Tests of a relaxation.

    Attributes:
        tolerance: relative error in float64 that is allowed; that of the record if None.
        dims: numbers of spatial dimensions of the generated convolutions.
        examples: how many convolutions each check generates.
    """

    kind = "relaxation"
    tolerance: ClassVar[float | None] = None
    dims: ClassVar[tuple[int, ...]] = (1, 2, 3)
    examples: ClassVar[int] = 20

    def parent(self) -> Case:
        """A layer that the relaxation accepts, in float64, with an input for it; override for layers that are no convolutions."""
        torch.manual_seed(0)
        refused = []
        for d in sorted(self.dims, key=(2, 1, 3).index):
            conv = CONVOLUTIONS[d - 1](2, 3, 3, padding=1, dtype=torch.float64)
            case = Case(conv, torch.randn(2, 2, *(6, 5, 4)[:d], dtype=torch.float64))
            reason = self.relaxation().refusal(_site(case))
            if reason is None:
                return case
            refused.append(f"{conv}: {reason}")
        msg = f"the relaxation refuses every plain convolution ({'; '.join(refused)}); override `parent` with a layer that it takes"
        raise AssertionError(msg)

    def network(self) -> tuple[nn.Module, torch.Tensor]:
        """A network with batch norm around layers to be relaxed, in float64, and an input for it."""
        torch.manual_seed(0)
        d = self.parent().x.ndim - 2
        conv, norm = CONVOLUTIONS[d - 1], (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[d - 1]
        size = (6, 5, 4)[:d]
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            first=conv(2, 3, 3, padding=1, bias=False),
            norm=norm(3),
            relu=nn.ReLU(),
            second=conv(3, 2, 3, padding=1, stride=2),
            flatten=nn.Flatten(),
        )
        features = nn.Sequential(layers)
        outputs = features(torch.zeros(2, 2, *size)).shape[1]
        x = torch.randn(4, 2, *size, dtype=torch.float64)
        return nn.Sequential(OrderedDict(features=features, head=nn.Linear(outputs, 3))).double(), x

    def relaxation(self) -> AbstractRelaxation:
        """The relaxation with the tested options."""
        relaxation: AbstractRelaxation = self.registry.create(self.kind, self.info.name, dict(self.options))
        return relaxation

    def test_record_states_its_exactness(self) -> None:
        """The record's tolerance is a positive number, and small if the relaxation calls itself exact."""
        assert self.info.tolerance > 0, f"`tolerance` must be positive: {self.info.tolerance}"
        assert not self.info.exact or self.info.tolerance <= 1e-6, (
            f"a relaxation with a tolerance of {self.info.tolerance} in float64 is not exact; write exact=False, or find the error"
        )

    def test_equals_its_parent(self) -> None:
        """The relaxed layer computes what its parent does, in float64, for every generated convolution that it does not refuse."""

        def check(site: Site, x: torch.Tensor, layer: RelaxedLayer) -> None:
            expected = site.module(x)
            found = layer(x)
            assert found.shape == expected.shape, f"the relaxed layer gives {list(found.shape)}, its parent {list(expected.shape)}"
            error = relative(found, expected)
            assert error <= self._tolerance, (
                f"the relaxed layer differs from its parent by {error:.1e}, more than {self._tolerance:.0e}; "
                "correct the lift, or refuse such layers with a reason in `refusal`"
            )

        self._on_generated(check)

    def test_refusals_are_sentences(self) -> None:
        """What is refused is refused with the end of a sentence, and something is accepted."""
        relaxation = self.relaxation()
        reasons = self._on_generated(lambda site, x, layer: None)
        odd = nn.EmbeddingBag(3, 2)
        reason = relaxation.refusal(Site(path="odd", module=odd, input_shape=(3, 4), output_shape=(2,)))
        assert reason is not None, "`refusal` accepts an nn.EmbeddingBag; say which modules you know, and refuse all others"
        for text in {*reasons, reason}:
            told = isinstance(text, str) and len(text.split()) >= 3 and "\n" not in text and not text.endswith(".")
            assert told, f"'features.0 cannot be relaxed: {text}' should be a sentence that says why, in one line"

    def test_projection_undoes_the_lift(self) -> None:
        """Projecting a relaxed layer that was not trained gives its parent again."""

        def check(site: Site, x: torch.Tensor, layer: RelaxedLayer) -> None:
            back = layer.project()
            error = relative(back(x), site.module(x))
            assert error <= self._tolerance, f"project() of a fresh layer differs from the parent by {error:.1e}; it must undo the lift"
            if not isinstance(site.module, nn.modules.conv._ConvNd):
                return
            assert repr(back) == repr(site.module), f"project() gives {back}, but the parent was {site.module}"
            for name, parameter in site.module.named_parameters():
                error = relative(back.get_parameter(name), parameter)
                assert error <= self._tolerance, (
                    f"after lift and project() the parent's {name} differs by {error:.1e}; where no output depends on a number "
                    "(a tap that only reads padding), keep the parent's"
                )

        self._on_generated(check)

    def test_parent_is_untouched(self) -> None:
        """Neither lifting, training nor projecting changes a bit of the network it came from, and no memory is shared."""
        case = self.parent()
        case.conv(case.x).sum().backward()
        before = Snapshot.of(case.conv)
        layer = self.relaxation().lift(_site(case))
        assert not before.changes(case.conv), f"lift() changed the parent: {', '.join(before.changes(case.conv))}; copy what you need"
        _disturb(layer)
        assert not before.changes(case.conv), "the relaxed layer shares memory with its parent; clone its tensors in lift()"
        lifted = Snapshot.of(layer)
        back = layer.project()
        assert not lifted.changes(layer), f"project() changed the layer: {', '.join(lifted.changes(layer))}"
        _disturb(back)
        assert not lifted.changes(layer), "project() shares memory with the relaxed layer; clone its tensors"

    def test_whole_network(self) -> None:
        """A network with batch norm is relaxed whole: equal in both modes, statistics kept, the original untouched."""
        network, x = self.network()
        network.eval()
        network.get_submodule("features").train()
        with torch.no_grad():
            network(x)
        before = Snapshot.of(network)
        relaxed = self._relaxed(network, x)
        assert not before.changes(network), f"relaxing changed the network: {', '.join(before.changes(network))}"
        assert relaxed.report.exact, f"the relaxed network differs from its parent by {relaxed.report.error:.1e} end to end"
        modes = {name: module.training for name, module in network.named_modules() if name not in relaxed.sites}
        kept = {name: module.training for name, module in relaxed.model.named_modules() if name in modes}
        assert kept == modes, "relaxing changed the training mode of a module"
        for training in (True, False):
            error = relative(relaxed.model.train(training)(x), network.train(training)(x))
            assert error <= 100 * self._tolerance, f"with training={training} the networks differ by {error:.1e}"

    def test_parameter_map_is_total(self) -> None:
        """Every parameter of the parent has an heir that exists; new parameters appear in relaxed layers alone."""
        network, x = self.network()
        relaxed = self._relaxed(network, x)
        heirs = relaxed.parameter_map
        names = {name for name, _ in relaxed.model.named_parameters()}
        lost = [name for name, _ in network.named_parameters() if not names.intersection(heirs.get(name, ()))]
        assert not lost, f"{', '.join(lost)} of the parent has no heir; a relaxed layer holds its weights as parameters"
        orphans = [
            name for name in sorted(names.difference(*heirs.values())) if not any(name.startswith(f"{path}.") for path in relaxed.sites)
        ]
        assert not orphans, f"{', '.join(orphans)} comes from no parameter of the parent and belongs to no relaxed layer"

    def test_leaves_the_constrained_family(self) -> None:
        """Gradients are finite and reach every parameter, and one step of gradient descent leads off the constrained family."""
        _, x, layer = self._lifted()
        target = torch.randn(layer(x).shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
        (layer(x) - target).square().mean().backward()
        without = [name for name, parameter in layer.named_parameters() if parameter.requires_grad and parameter.grad is None]
        assert not without, f"no gradient reaches {', '.join(without)}; use it in forward(), or register it as a buffer"
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                if parameter.grad is not None:
                    assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite at the switch"
                    parameter.sub_(parameter.grad, alpha=0.1)
            apart = relative(layer(x), layer.project()(x))
        assert apart > 1e-8, (
            "after one step of gradient descent the layer still is its own projection: the switch is a saddle point. "
            "Break the symmetry, e.g. by different factors for copies that start equal, so that gradients tell them apart"
        )
        drift = _drift(layer)
        assert drift is None or drift.unshared + drift.off_local > 1e-16 * drift.total, (
            "one step of gradient descent left the constrained family, but drift() still finds nothing unshared nor off-local"
        )

    def test_is_twice_differentiable(self) -> None:
        """Gradients can be differentiated again, as curvature probes do."""
        _, x, layer = self._lifted()
        parameters = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(layer(x).pow(3).sum(), parameters, create_graph=True)
        size = torch.stack([gradient.square().sum() for gradient in gradients]).sum()
        assert size.requires_grad, "the gradient cannot be differentiated; write forward() in differentiable operations"
        second = torch.autograd.grad(size, parameters, allow_unused=True)
        assert all(bool(value.isfinite().all()) for value in second if value is not None), "a second derivative is not finite"

    def test_dtype_is_kept(self) -> None:
        """A float32, bfloat16 or float64 layer stays what it is, and so do its outputs."""
        for dtype, rounding in ((torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float64, self._tolerance)):
            case = self.parent()
            case = Case(case.conv.to(dtype), case.x.to(dtype))
            layer = self.relaxation().lift(_site(case))
            for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
                kept = tensor.dtype == dtype or not tensor.is_floating_point()
                assert kept, f"{name} is {tensor.dtype} where the parent is {dtype}; make tensors with parent.weight.new_zeros(...)"
            output = layer(case.x)
            assert output.dtype == dtype, f"the output is {output.dtype} where the parent's is {dtype}"
            error = relative(output, case.conv(case.x))
            assert error <= rounding, f"in {dtype} the relaxed layer differs from its parent by {error:.1e}"
            assert all(parameter.dtype == dtype for parameter in layer.project().parameters()), f"project() does not keep {dtype}"

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_cuda_device_is_kept(self) -> None:
        """A layer on a CUDA device stays there, equal to its parent."""
        case = self.parent()
        case = Case(case.conv.cuda(), case.x.cuda())
        layer = self.relaxation().lift(_site(case))
        elsewhere = [name for name, tensor in [*layer.named_parameters(), *layer.named_buffers()] if tensor.device.type != "cuda"]
        assert not elsewhere, f"{', '.join(elsewhere)} left the parent's device; make tensors with parent.weight.new_zeros(...)"
        assert relative(layer(case.x), case.conv(case.x)) <= self._tolerance, "on a CUDA device the layer differs from its parent"
        assert relative(layer.project()(case.x), case.conv(case.x)) <= self._tolerance, "on a CUDA device project() does not undo the lift"

    def test_single_inputs(self) -> None:
        """An input without a batch dimension is accepted where the parent accepts it."""
        site, x, layer = self._lifted()
        try:
            expected = site.module(x[0])
        except (RuntimeError, ValueError):
            return
        found = layer(x[0])
        assert relative(found, expected) <= self._tolerance, f"for one input without batch dimension the layer gives {list(found.shape)}"

    def test_mode_is_kept(self) -> None:
        """A layer in evaluation mode stays in evaluation mode, when lifted and when projected."""
        for training in (True, False):
            case = self.parent()
            case.conv.train(training)
            layer = self.relaxation().lift(_site(case))
            assert layer.training == training, f"lift() gives training={layer.training}; end it with layer.train(site.module.training)"
            assert layer.project().training == training, "project() does not keep the mode; end it with .train(self.training)"

    def test_lift_draws_no_random_numbers(self) -> None:
        """The lift is a function of the layer and the options: the same bits whatever the global random state, which it leaves alone."""
        state = random_states()
        try:
            case = self.parent()
            torch.manual_seed(1)
            before = random_states()
            first = self.relaxation().lift(_site(case)).state_dict()
            changed = changed_states(before)
            torch.manual_seed(2)
            second = self.relaxation().lift(_site(case)).state_dict()
        finally:
            torch.set_rng_state(torch.tensor(state["random state of torch"], dtype=torch.uint8))
        advice = "draw from a torch.Generator of your own, seeded by an option: a checkpoint repeats the lift to the same bits"
        assert not changed, f"lift() changes the {', '.join(changed)}; {advice}"
        differing = [name for name in first if not same_bits(first[name], second[name])]
        assert not differing, f"lift() gives another {', '.join(differing)} each time; {advice}"

    def test_cost_is_what_is_allocated(self) -> None:
        """The cost that was told beforehand is what the relaxed layer holds."""
        relaxation = self.relaxation()

        def check(site: Site, x: torch.Tensor, layer: RelaxedLayer) -> None:
            cost = relaxation.cost(site)
            assert isinstance(cost, Cost), f"cost() gives a {type(cost).__name__}, expected a Cost"
            held = sum(parameter.numel() for parameter in layer.parameters())
            assert cost.parameters == held, f"cost() says {cost.parameters} parameters, the layer has {held}"
            sizes = {parameter.element_size() for parameter in layer.parameters()}
            assert sizes <= {cost.itemsize}, f"cost() says {cost.itemsize} bytes per number, the layer has {sizes}"

        self._on_generated(check)
        site, _, layer = self._lifted()
        beside = sum(buffer.numel() for buffer in layer.buffers())
        cost = relaxation.cost(site)
        told = f"cost() says {cost.scratch_parameters} numbers beside the parameters, the layer has buffers of {beside}"
        assert cost.scratch_parameters >= beside, told
        assert cost.flops > 0, "cost() says that a forward pass takes no operations"

    def test_cost_allocates_nothing(self) -> None:
        """The cost of a layer far too large for memory is told at once."""
        d = self.parent().x.ndim - 2
        shape = (64, *[(4096, 128, 32)[d - 1]] * d)
        site = Site(path="large", module=CONVOLUTIONS[d - 1](64, 64, 3, padding=1), input_shape=shape, output_shape=shape)
        relaxation = self.relaxation()
        if relaxation.refusal(site) is not None:
            return
        with _LargestTensor() as seen:
            relaxation.cost(site)
        assert seen.numbers < 1 << 22, f"cost() made a tensor of {seen.numbers} numbers; work it out from the sizes"

    def test_drift_of_a_fresh_layer_is_nothing(self) -> None:
        """Right after the lift all of the weight is shared, and nothing has moved."""

        def check(site: Site, x: torch.Tensor, layer: RelaxedLayer) -> None:
            drift = _drift(layer)
            if drift is None:
                return
            apart = drift.unshared + drift.off_local
            assert apart <= max(self._tolerance, 1e-10) ** 2 * drift.total or apart == 0, (
                f"drift() of a fresh layer finds {drift.unshared:.1e} unshared and {drift.off_local:.1e} off-local of {drift.total:.1e}"
            )
            still = layer.drift(copy.deepcopy(layer))
            assert still.moved is not None, "drift(reference) must say how far the shared part moved"
            assert still.reference is not None, "drift(reference) must say how large the reference's shared part is"
            assert still.moved <= 1e-18 * max(still.reference, 1e-300), f"drift() of a layer from itself moved by {still.moved:.1e}"

        self._on_generated(check)

    def test_drift_parts_are_squared_norms(self) -> None:
        """The parts of the drift are not negative, and of a layer that is linear in its input they add up to its matrix."""
        _, x, layer = self._lifted()
        _disturb(layer)
        drift = _drift(layer)
        if drift is None:
            return
        parts = {"shared": drift.shared, "unshared": drift.unshared, "off_local": drift.off_local}
        for name, value in parts.items():
            assert value >= 0, f"drift().{name} is a squared norm, not {value}"
        for value in drift.initial or ():
            assert value >= 0, f"drift().initial holds expected squared norms, not {value}"
        projected = self.relaxation().lift(_site(Case(layer.project(), x))).drift().total
        assert drift.shared == pytest.approx(projected, rel=1e-6), (
            f"drift().shared is {drift.shared:.6g}, but the projection, lifted again, has a squared norm of {projected:.6g}"
        )
        matrix = _matrix(layer, x)
        assert matrix is None or drift.total == pytest.approx(matrix, rel=1e-6), (
            f"the parts of drift() add up to {drift.total:.6g}, but the layer's matrix has a squared norm of {matrix:.6g}"
        )

    def test_split_parts_add_up(self) -> None:
        """The parts of any tensor shaped as a parameter add up to it, and splitting a part again changes nothing."""
        _, _, layer = self._lifted()
        generator = torch.Generator().manual_seed(1)
        for name, parameter in layer.named_parameters():
            tensor = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
            try:
                parts = layer.split(tensor, name)
            except AnarchError:
                continue  # a clear refusal; probes report it
            assert len(parts) == 3, f"split(..., {name!r}) gives {len(parts)} parts, expected (shared, unshared, off-local)"
            for part, label in zip(parts, ("shared", "unshared", "off-local"), strict=True):
                assert part.shape == tensor.shape, f"the {label} part of {name} is {list(part.shape)}, expected {list(tensor.shape)}"
            assert relative(sum(parts, torch.zeros_like(tensor)), tensor) < 1e-9, f"the parts of {name} do not add up to it"
            for index, label in enumerate(("shared", "unshared", "off-local")):
                for other, again in enumerate(layer.split(parts[index], name)):
                    expected = parts[index] if other == index else torch.zeros_like(tensor)
                    error = float((again - expected).abs().max() / tensor.abs().max())
                    assert error < 1e-9, f"split() of the {label} part of {name} does not give that part back: it is no projection"

    def test_reset_depends_on_the_seed_alone(self) -> None:
        """Default initialisation is a function of the random state: equal for equal seeds, whatever the weights were."""
        _, x, layer = self._lifted()
        values = []
        for seed in (0, 0, 1):
            _disturb(layer)
            torch.manual_seed(seed)
            with torch.random.fork_rng(devices=[]):
                layer.reset_parameters()
            values.append({name: parameter.detach().clone() for name, parameter in layer.named_parameters()})
        kept = [name for name in values[0] if not torch.equal(values[0][name], values[1][name])]
        assert not kept, f"reset_parameters() leaves something of the old {', '.join(kept)}; initialise every parameter"
        assert any(not torch.equal(values[1][name], values[2][name]) for name in values[0]), "reset_parameters() ignores the seed"
        assert layer(x).isfinite().all(), "a freshly initialised layer gives numbers that are not finite"

    def test_optimizer_state_fits(self) -> None:
        """State carried over the switch has the shapes of the relaxed parameters; squares stay non-negative."""
        relaxation = self.relaxation()

        def check(site: Site, x: torch.Tensor, layer: RelaxedLayer) -> None:
            parameters = dict(layer.named_parameters())
            for name, parameter in site.module.named_parameters():
                for role in get_args(TensorRole):
                    state = relaxation.transport(site, layer, name, parameter.detach().square(), role)
                    for heir, tensor in (state or {}).items():
                        assert heir in parameters, f"transport({name!r}) gives state for {heir!r}, which is no parameter of the layer"
                        shapes = f"{list(tensor.shape)}, expected {list(parameters[heir].shape)}"
                        assert tensor.shape == parameters[heir].shape, f"transport({name!r}, role={role!r}) gives {heir} {shapes}"
                        assert tensor.dtype == parameter.dtype, f"transport({name!r}, role={role!r}) gives {heir} in {tensor.dtype}"
                        assert tensor.isfinite().all(), f"transport({name!r}, role={role!r}) gives numbers that are not finite"
                        assert role != "square" or bool((tensor >= 0).all()), f"transport({name!r}, role='square') gives negative squares"

        self._on_generated(check)

    def test_checkpoint_in_a_fresh_process(self, tmp_path: Path) -> None:
        """A trained relaxed network, saved and loaded by another process, computes the same to the last bit."""
        case = self.parent()
        base = nn.Sequential(OrderedDict(layer=case.conv))
        model = relax(base, self.name, example_input=case.x, options=dict(self.options), registry=self.registry).model
        _disturb(model)
        save(model, tmp_path / "relaxed.safetensors")
        _disturb(base)  # what is not in the file must not come from the network it is loaded into
        torch.save((base, case.x), tmp_path / "base.pt")
        in_fresh_process(_REBUILD, str(tmp_path), str(torch.get_num_threads()))
        output = torch.load(tmp_path / "output.pt")
        assert torch.equal(output, model(case.x)), (
            "the network that another process loads computes something else; hold all that is not rebuilt from the layer's sizes "
            "and the options in parameters or persistent buffers"
        )

    def test_checkpoint_of_a_fresh_lift(self, tmp_path: Path) -> None:
        """A network just relaxed can be stored as its parent, and the lift repeated when it is loaded."""
        case = self.parent()
        base = nn.Sequential(OrderedDict(layer=case.conv))
        model = relax(base, self.name, example_input=case.x, options=dict(self.options), registry=self.registry).model
        save(model, tmp_path / "lift.safetensors", parent=base)
        again = load(tmp_path / "lift.safetensors", model=base, registry=self.registry)
        assert torch.equal(again(case.x), model(case.x)), "the lift, repeated when a checkpoint is loaded, gives another network"

    def test_copies_are_independent(self) -> None:
        """A relaxed layer can be copied, and its state loaded into another one, strictly."""
        _, x, layer = self._lifted()
        _disturb(layer)
        twin = copy.deepcopy(layer)
        assert torch.equal(twin(x), layer(x)), "copy.deepcopy of the layer computes something else"
        _, _, other = self._lifted()
        other.load_state_dict(layer.state_dict())
        assert torch.equal(other(x), layer(x)), "a layer that was given the state of another computes something else"
        expected = layer(x).detach().clone()
        _disturb(twin)
        assert torch.equal(layer(x), expected), "copy.deepcopy of the layer shares memory with it"

    def test_applying_twice_is_defined(self) -> None:
        """Relaxing the relaxed network again is exact, has nothing to do, or is refused with a reason."""
        case = self.parent()
        base = nn.Sequential(OrderedDict(layer=case.conv))
        arguments: dict[str, Any] = {"example_input": case.x, "options": dict(self.options), "registry": self.registry}
        once = relax(base, self.name, **arguments).model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoEffectWarning)
            try:
                twice = relax(once, self.name, **arguments)
            except SurgeryError:
                return
        assert twice.report.exact, "relaxing the relaxed network again is not exact; refuse such layers in `refusal`"
        assert len(applied_relaxations(twice.model)) == 2, "relaxing twice must leave two records"

    @property
    def _tolerance(self) -> float:
        return float(self.info.tolerance) if self.tolerance is None else self.tolerance

    def _lifted(self) -> tuple[Site, torch.Tensor, RelaxedLayer]:
        case = self.parent()
        site = _site(case)
        layer = self.relaxation().lift(site)
        assert isinstance(layer, RelaxedLayer), f"lift() gives a {type(layer).__name__}, expected a RelaxedLayer"
        assert layer.relaxation == self.info.name, f"the layer's `relaxation` is {layer.relaxation!r}, expected {self.info.name!r}"
        return site, case.x, layer

    def _relaxed(self, network: nn.Module, x: torch.Tensor) -> Relaxed:
        """The network with every layer relaxed that the relaxation accepts."""
        arguments: dict[str, Any] = {"example_input": x, "options": dict(self.options), "registry": self.registry}
        planned = plan(network, self.name, **arguments)
        assert planned.layers, f"no layer of the network can be relaxed ({planned.refused}); override `network` with one that can"
        return relax(network, self.name, layers=[layer.path for layer in planned.layers], **arguments)

    def _on_generated(self, check: Check) -> set[str]:
        """Run a check on generated convolutions; returns why others were refused."""
        relaxation = self.relaxation()
        accepted, refused = 0, set()

        @hypothesis.settings(max_examples=self.examples, deadline=None, derandomize=True, database=None)
        @hypothesis.given(case=cases(dims=self.dims))
        def generated(case: Case) -> None:
            nonlocal accepted
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Using padding='same'", category=UserWarning)
                site = _site(case)
                reason = relaxation.refusal(site)
                if reason is not None:
                    refused.add(reason)
                    return
                accepted += 1
                check(site, case.x, relaxation.lift(site))

        generated()
        assert accepted, f"every generated convolution is refused ({'; '.join(sorted(refused))}); narrow `dims`, or accept more"
        return refused


class _LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest tensor that any operation gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        self.numbers = max([self.numbers, *sizes])
        return result


def _site(case: Case) -> Site:
    with torch.no_grad():
        output = case.conv(case.x)
    return Site(path="layer", module=case.conv, input_shape=tuple(case.x.shape[1:]), output_shape=tuple(output.shape[1:]))


@torch.no_grad()
def _disturb(module: nn.Module) -> None:
    """Move every parameter somewhere else."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        parameter.add_(torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator), alpha=0.1)


def _drift(layer: RelaxedLayer) -> Drift | None:
    """The drift; None where the layer says that it has none."""
    try:
        return layer.drift()
    except AnarchError:
        return None


def _matrix(layer: nn.Module, x: torch.Tensor) -> float | None:
    """Squared norm of a layer's matrix; None for one that is not linear in its input, up to a bias."""
    with torch.no_grad():
        constant = layer(torch.zeros_like(x))
        if relative(layer(2 * x) - constant, 2 * (layer(x) - constant)) > 1e-9:
            return None
        if relative(layer(x + x.flip(0)) - constant, layer(x) + layer(x.flip(0)) - 2 * constant) > 1e-9:
            return None
    jacobian = torch.autograd.functional.jacobian(lambda one: layer(one[None])[0], x[0])  # type: ignore[no-untyped-call]
    return float(jacobian.square().sum())
