"""Checks of the lift: the relaxed layer is its parent in all that can be seen of it."""

from __future__ import annotations

import warnings
from typing import Any, get_args

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode

from anarch_core.errors import NoEffectWarning, SurgeryError
from anarch_core.layers.base import Cost, RelaxedLayer
from anarch_core.plugin.records import TensorRole
from anarch_core.relaxation.base import Site
from anarch_core.relaxation.surgery import is_target, owner
from anarch_core.relaxation.verbs import applied_relaxations, relax
from anarch_core.surroundings import Surroundings
from anarch_core.testing.cases import Case, apart, called, disturb, in_words, numbers_of
from anarch_core.testing.snapshot import Snapshot, in_memory_of, relative, same_bits
from anarch_core.testing.subject import RelaxationSubject


class LiftChecks(RelaxationSubject):
    """The relaxed layer equals its parent, shares nothing with it, and costs what was said."""

    def test_record_states_its_exactness(self) -> None:
        """The record's tolerance is a positive number, and small if the relaxation calls itself exact."""
        assert self.info.tolerance > 0, f"`tolerance` must be positive: {self.info.tolerance}"
        assert not self.info.exact or self.info.tolerance <= 1e-6, (
            f"a relaxation with a tolerance of {self.info.tolerance} in float64 is not exact; write exact=False, or find the error"
        )

    def test_equals_its_parent(self) -> None:
        """The relaxed layer computes what its parent does, in float64, for every generated layer that it does not refuse."""

        def check(case: Case, layer: RelaxedLayer) -> None:
            expected, found = case.outputs(), case.outputs(layer)
            assert in_words(found) == in_words(expected), f"the relaxed layer gives {in_words(found)}, its parent {in_words(expected)}"
            error = apart(found, expected)
            assert error <= self.allowed, (
                f"the relaxed layer differs from its parent by {error:.1e}, more than {self.allowed:.0e}; "
                "correct the lift, or refuse such layers with a reason in `refusal`"
            )

        self.on_generated(check)

    def test_refusals_are_sentences(self) -> None:
        """What is refused or has nothing to relax is so with the end of a sentence, and something is accepted."""
        relaxation = self.relaxation()
        reasons = self.on_generated(lambda case, layer: None)
        odd = Site(path="odd", module=nn.EmbeddingBag(3, 2), input_shape=(3, 4), output_shape=(2,))
        if is_target(odd.module, relaxation.targets):
            reason = relaxation.refusal(odd) or relaxation.idle(odd)
            assert reason is not None, "`refusal` accepts an nn.EmbeddingBag; say which modules you know, and refuse all others"
            reasons.add(reason)
        for text in reasons:
            told = isinstance(text, str) and len(text.split()) >= 3 and "\n" not in text and not text.endswith(".")
            assert told, f"'features.0 cannot be relaxed: {text}' should be a sentence that says why, in one line"

    def test_parent_is_untouched(self) -> None:
        """Neither lifting, training nor projecting changes a bit of the network it came from, and no memory is shared."""
        case = self.parent()
        torch.cat([output.flatten() for output in case.numbers()]).sum().backward()  # type: ignore[no-untyped-call]
        before = Snapshot.of(case.module)
        layer = self.lift(case)
        shared = in_memory_of(layer, case.module)
        assert not shared, f"{', '.join(shared)} of the relaxed layer shares memory with its parent; clone its tensors in lift()"
        assert not before.changes(case.module), f"lift() changed the parent: {', '.join(before.changes(case.module))}; copy what you need"
        disturb(layer)
        assert not before.changes(case.module), "the relaxed layer shares memory with its parent; clone its tensors in lift()"
        lifted = Snapshot.of(layer)
        back = layer.project()
        shared = in_memory_of(back, layer)
        assert not shared, f"{', '.join(shared)} of what project() gives shares memory with the relaxed layer; clone its tensors"
        assert not lifted.changes(layer), f"project() changed the layer: {', '.join(lifted.changes(layer))}"
        disturb(back)
        assert not lifted.changes(layer), "project() shares memory with the relaxed layer; clone its tensors"

    def test_whole_network(self) -> None:
        """A network with batch norm is relaxed whole: equal in both modes, statistics kept, the original untouched."""
        network, example = self.network()
        network.train()
        for module in list(network.children())[-1:]:
            module.eval()
        with torch.no_grad():
            called(network, example)
        before = Snapshot.of(network)
        relaxed = self.relaxed(network, example)
        assert not before.changes(network), f"relaxing changed the network: {', '.join(before.changes(network))}"
        assert relaxed.report.exact, f"the relaxed network differs from its parent: {relaxed.report.complaint or 'nothing was compared'}"
        modes = {name: module.training for name, module in network.named_modules() if owner(f"{name}.", relaxed.sites) is None}
        kept = {name: module.training for name, module in relaxed.model.named_modules() if name in modes}
        assert kept == modes, "relaxing changed the training mode of a module"
        for training in (True, False):
            error = apart(called(relaxed.model.train(training), example), called(network.train(training), example))
            assert error <= 100 * self.allowed, f"with training={training} the networks differ by {error:.1e}"

    def test_outputs_may_be_changed_in_place(self) -> None:
        """A network that changes the layer's output in place works as its parent does, where that can be, and so do its gradients."""
        case, layer = self.lifted()

        def gradients(module: nn.Module) -> list[torch.Tensor | None]:
            given, wanted = case.differentiable()
            torch.cat([torch.relu_(output).flatten() for output in given.numbers(module)]).square().sum().backward()  # type: ignore[no-untyped-call]
            return [tensor.grad for tensor in wanted]

        try:
            expected = gradients(case.module)
        except RuntimeError:
            return
        try:
            found = gradients(layer)
        except RuntimeError as error:
            msg = f"an activation in place after the layer fails: {error}; return a tensor that nothing else needs, no view and no buffer"
            raise AssertionError(msg) from error
        for parents, relaxed in zip(expected, found, strict=True):
            if parents is None:
                continue
            assert relaxed is not None, "no gradient reaches the layer's input"
            size = relative(relaxed, parents)
            told = f"after an activation in place the input's gradient differs from the parent's by {size:.1e}"
            assert size <= 100 * self.allowed or bool((parents == relaxed).all()), told

    def test_parameter_map_is_total(self) -> None:
        """Every parameter of the parent has an heir that exists; new parameters appear in relaxed layers alone."""
        network, example = self.network()
        relaxed = self.relaxed(network, example)
        heirs = relaxed.parameter_map
        names = {name for name, _ in relaxed.model.named_parameters()}
        lost = [name for name, _ in network.named_parameters() if not names.intersection(heirs.get(name, ()))]
        assert not lost, f"{', '.join(lost)} of the parent has no heir; a relaxed layer holds its weights as parameters"
        orphans = [
            name for name in sorted(names.difference(*heirs.values())) if not any(name.startswith(f"{path}.") for path in relaxed.sites)
        ]
        assert not orphans, f"{', '.join(orphans)} comes from no parameter of the parent and belongs to no relaxed layer"

    def test_dtype_is_kept(self) -> None:
        """A float32, bfloat16 or float64 layer stays what it is, and so do its outputs; where the parent computes in that type."""
        for dtype, rounding in ((torch.float32, 1e-4), (torch.bfloat16, 0.1), (torch.float64, self.allowed)):
            case = self.parent().to(dtype)
            try:
                expected = case.outputs()
            except (RuntimeError, NotImplementedError):
                continue
            layer = self.lift(case)
            for name, tensor in [*layer.named_parameters(), *layer.named_buffers()]:
                kept = tensor.dtype == dtype or not tensor.is_floating_point()
                assert kept, f"{name} is {tensor.dtype} where the parent is {dtype}; make tensors with parent.weight.new_zeros(...)"
            for output, parents in zip(case.numbers(layer), numbers_of(expected), strict=True):
                assert output.dtype == parents.dtype, f"the output is {output.dtype} where the parent's is {parents.dtype}"
            error = apart(case.outputs(layer), expected)
            assert error <= rounding, f"in {dtype} the relaxed layer differs from its parent by {error:.1e}"
            assert all(parameter.dtype == dtype for parameter in layer.project().parameters()), f"project() does not keep {dtype}"

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_cuda_device_is_kept(self) -> None:
        """A layer on a CUDA device stays there, equal to its parent."""
        case = self.parent().to(torch.device("cuda"))
        layer = self.lift(case)
        elsewhere = [name for name, tensor in [*layer.named_parameters(), *layer.named_buffers()] if tensor.device.type != "cuda"]
        assert not elsewhere, f"{', '.join(elsewhere)} left the parent's device; make tensors with parent.weight.new_zeros(...)"
        assert apart(case.outputs(layer), case.outputs()) <= self.allowed, "on a CUDA device the layer differs from its parent"
        back = case.outputs(layer.project())
        assert apart(back, case.outputs()) <= self.allowed, "on a CUDA device project() does not undo the lift"

    def test_single_inputs(self) -> None:
        """Inputs without their first dimension, that of the batch, are accepted where the parent accepts them."""
        case, layer = self.lifted()
        single = case.giving(*tree_map_only(torch.Tensor, lambda tensor: tensor[0], case.given))
        try:
            expected = single.outputs()
        except (RuntimeError, ValueError, IndexError, TypeError):
            return
        try:
            found = single.outputs(layer)
        except (RuntimeError, ValueError, IndexError, TypeError) as reason:
            msg = f"the layer refuses one input without batch dimension, which its parent takes: {reason}"
            raise AssertionError(msg) from reason
        error = apart(found, expected)
        assert error <= self.allowed, f"for one input without batch dimension the layer differs from its parent by {error:.1e}"

    def test_mode_is_kept(self) -> None:
        """A layer in evaluation mode stays in evaluation mode, when lifted and when projected."""
        for training in (True, False):
            case = self.parent()
            case.module.train(training)
            layer = self.lift(case)
            assert layer.training == training, f"lift() gives training={layer.training}; end it with layer.train(site.module.training)"
            assert layer.project().training == training, "project() does not keep the mode; end it with .train(self.training)"

    def test_lift_draws_no_random_numbers(self) -> None:
        """The lift is a function of the layer and the options alone: the same bits each time; neither it nor project() draws numbers."""
        state = torch.get_rng_state()
        try:
            case = self.parent()
            torch.manual_seed(1)
            before = Surroundings.now()
            layer = self.lift(case)
            changed = before.changed()
            first = layer.state_dict()
            before = Surroundings.now()
            layer.project()
            projecting = before.changed()
            torch.manual_seed(2)
            second = self.lift(case).state_dict()
        finally:
            torch.set_rng_state(state)
        advice = "draw from a torch.Generator of your own, seeded by an option: a checkpoint repeats the lift to the same bits"
        assert not changed, f"lift() changes the {', '.join(changed)}; {advice}"
        told = (
            f"project() changes the {', '.join(projecting)}; make the layer without initialising it: by torch.nn.utils.skip_init, or, "
            "where its class takes no device, within `with torch.device('meta')`, and then to_empty(device=...)"
        )
        assert not projecting, told
        differing = [name for name in first if not same_bits(first[name], second[name])]
        assert not differing, f"lift() gives another {', '.join(differing)} each time; {advice}"

    def test_cost_is_what_is_allocated(self) -> None:
        """The cost that was told beforehand is what the relaxed layer holds."""
        relaxation = self.relaxation()

        def check(case: Case, layer: RelaxedLayer) -> None:
            site = self.site(case)
            cost = relaxation.cost(site)
            assert isinstance(cost, Cost), f"cost() gives a {type(cost).__name__}, expected a Cost"
            held = sum(parameter.numel() for parameter in layer.parameters())
            assert cost.parameters == held, f"cost() says {cost.parameters} parameters, the layer has {held}"
            sizes = {parameter.element_size() for parameter in layer.parameters()}
            assert sizes <= {cost.itemsize}, f"cost() says {cost.itemsize} bytes per number, the layer has {sizes}"

        self.on_generated(check)
        case, layer = self.lifted()
        beside = sum(buffer.numel() for buffer in layer.buffers())
        cost = relaxation.cost(self.site(case))
        told = f"cost() says {cost.scratch_parameters} numbers beside the parameters, the layer has buffers of {beside}"
        assert cost.scratch_parameters >= beside, told
        with FlopCounterMode(display=False) as counter:
            case.outputs()
        free = counter.get_total_flops() == 0
        assert cost.flops > 0 or (free and cost.flops == 0), "cost() says that a forward pass takes no operations"

    def test_cost_allocates_nothing(self) -> None:
        """The cost of a layer far too large for memory is told at once."""
        case = self.large()
        if case is None:
            return
        relaxation, site = self.relaxation(), self.site(case)
        if relaxation.refusal(site) is not None:
            return
        with _LargestTensor() as seen:
            relaxation.cost(site)
        assert seen.numbers < 1 << 22, f"cost() made a tensor of {seen.numbers} numbers; work it out from the sizes"

    def test_optimizer_state_fits(self) -> None:
        """State carried over the switch has the shapes of the relaxed parameters; squares stay non-negative."""
        relaxation = self.relaxation()

        def check(case: Case, layer: RelaxedLayer) -> None:
            site = self.site(case)
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
                ones = torch.ones_like(parameter)
                squares, sums = (relaxation.transport(site, layer, name, ones, role) or {} for role in ("square", "gradient"))
                for heir in squares.keys() & sums.keys():
                    alone = int(((squares[heir] == 0) & (sums[heir] != 0)).sum())
                    assert not alone, (
                        f"transport({name!r}, role='square') gives {alone} zeros in {heir} where role='gradient' gives numbers, and Adam "
                        "divides by the root: give the mean of the others where there is no history"
                    )

        self.on_generated(check)

    def test_applying_twice_is_defined(self) -> None:
        """Relaxing the relaxed network again is exact, has nothing to do, or is refused with a reason."""
        case = self.parent()
        base = case.around()
        arguments: dict[str, Any] = {"example_input": case.given, "options": dict(self.options), "registry": self.registry}
        once = relax(base, self.name, **arguments).model
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NoEffectWarning)
            try:
                twice = relax(once, self.name, **arguments)
            except SurgeryError:
                return
        assert twice.report.exact, "relaxing the relaxed network again is not exact; refuse such layers in `refusal`"
        assert len(applied_relaxations(twice.model)) == 2, "relaxing twice must leave two records"


class _LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest tensor with memory that any operation gives."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta"]
        self.numbers = max([self.numbers, *sizes])
        return result
