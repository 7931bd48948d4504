"""Running a network on an example, and watching what it does with some of its layers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from anarch_core.errors import SurgeryError, one_line
from anarch_core.network import in_mode, unchanged
from anarch_core.relaxation.outputs import numbers_in
from anarch_core.relaxation.watch import UseOfTensors


@attrs.frozen
class Manner:
    """How a network is run.

    Attributes:
        training: in training or in evaluation mode; None leaves every module in the mode it is in.
        grad: whether gradients can be taken inside, as a network does that differentiates something in its forward pass.
    """

    training: bool | None = None
    grad: bool = False

    @contextlib.contextmanager
    def apply(self, model: nn.Module) -> Iterator[None]:
        """Inside, the network is run in this manner; afterwards it is as it was."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(unchanged(model))
            if "torch._dynamo" in sys.modules:  # compiled parts run as they are written, so that their layers can be watched
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            if self.training is not None:
                stack.enter_context(in_mode(model, self.training))
            stack.enter_context(torch.set_grad_enabled(self.grad))
            yield


@attrs.frozen(kw_only=True)
class Call:
    """One call of a layer while the example input ran through the network.

    Attributes:
        input_shape: with the batch dimension, if there is one.
        output_shape: likewise.
        dtype: of the output.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: torch.dtype


@attrs.frozen(kw_only=True)
class Trace:
    """What one pass of the example input showed.

    Attributes:
        manner: how the network was run.
        calls: calls of each layer by path.
        odd: path -> why what a layer does is not known from its calls, as the end of the sentence "features.0 cannot be relaxed: ...".
        outputs: the numbers that the network returned.
        loose: convolutions that were computed by none of the layers.
        notes: sentences on what a reader of the outcome should know of this pass.
        elsewhere: why the other mode could not be looked at for layers that this pass does not call; empty where it could or need not.
    """

    manner: Manner
    calls: Mapping[str, Sequence[Call]]
    odd: Mapping[str, str]
    outputs: Sequence[torch.Tensor]
    loose: int = 0
    notes: Sequence[str] = ()
    elsewhere: str = ""


def run(model: nn.Module, example_input: Any) -> list[torch.Tensor]:
    """Call the network on a copy of an example (a tensor, a tuple of arguments or a dictionary of them); the numbers it returns."""
    given = dict(example_input) if isinstance(example_input, Mapping) else example_input
    given = tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone().requires_grad_(tensor.requires_grad), given)
    if isinstance(given, dict):
        return numbers_in(model(**given))
    if isinstance(given, tuple | list):
        return numbers_in(model(*given))
    return numbers_in(model(given))


def trace(model: nn.Module, paths: Sequence[str], example_input: Any) -> Trace:
    """Run the example input in the mode the network is in, and record every call of the modules at ``paths``.

    Where it does not run in that mode (batch norm of a single sample), it is run in evaluation mode.

    Raises:
        SurgeryError: the network does not accept the example input.
    """
    manners = [Manner(), Manner(grad=True)]
    if any(module.training for module in model.modules()):
        manners += [Manner(training=False), Manner(training=False, grad=True)]
    errors: list[Exception] = []
    for manner in manners:
        try:
            found = trace_as(manner, model, paths, example_input)
        except Exception as error:  # whatever a network may raise
            errors.append(error)
            continue
        if manner.training is None:
            return found
        note = f"checked in evaluation mode: in training mode the network does not run on the example ({one_line(errors[0])})"
        return attrs.evolve(found, notes=[note])
    raise _not_accepted(example_input, errors[0]) from errors[0]


def trace_as(manner: Manner, model: nn.Module, paths: Sequence[str], example_input: Any) -> Trace:
    """Run the example input in one manner. Whatever the network raises is raised."""
    calls: dict[str, list[Call]] = {path: [] for path in paths}
    odd: dict[str, str] = {}
    modules = {path: module for path in paths if not isinstance(module := model.get_submodule(path), torch.jit.ScriptModule)}
    watch = UseOfTensors((tensor, path) for path, module in modules.items() for tensor in module.parameters())

    def record(path: str, given: Any, output: Any) -> None:
        if not isinstance(given, torch.Tensor) or not isinstance(output, torch.Tensor):
            odd[path] = f"it is given a {type(given).__name__} and returns a {type(output).__name__}, not a tensor for a tensor"
            return
        calls[path].append(Call(input_shape=tuple(given.shape), output_shape=tuple(output.shape), dtype=output.dtype))

    with manner.apply(model), observed(modules, watch, record), watch:
        outputs = run(model, example_input)
    for path, operation in watch.used.items():
        odd.setdefault(path, f"its weight is used outside of it, too ({operation}), where a relaxed layer has another weight")
    return Trace(manner=manner, calls=calls, odd=odd, outputs=outputs, loose=watch.loose)


def trace_in_evaluation_mode(trace: Trace, model: nn.Module, example_input: Any) -> Trace | None:
    """The same pass in evaluation mode; None where it was made in that mode, or where the network does not run in it."""
    if trace.manner.training is False or not any(module.training for module in model.modules()):
        return None
    with contextlib.suppress(Exception):  # whatever a network may raise
        return trace_as(Manner(training=False, grad=trace.manner.grad), model, list(trace.calls), example_input)
    return None


def inputs_of(model: nn.Module, paths: Sequence[str], example_input: Any) -> dict[str, list[torch.Tensor]]:
    """What the modules at ``paths`` are given when the example input runs through the network in evaluation mode: copies, by path.

    Raises:
        SurgeryError: the network does not accept the example input.
    """
    inputs: dict[str, list[torch.Tensor]] = {path: [] for path in paths}
    with contextlib.ExitStack() as stack:
        for path in paths:

            def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: str = path) -> None:
                inputs[path].append(input_of(args, kwargs).detach().clone())

            stack.enter_context(model.get_submodule(path).register_forward_pre_hook(record, with_kwargs=True))
        stack.enter_context(Manner(training=False).apply(model))
        try:
            run(model, example_input)
        except Exception as error:
            raise _not_accepted(example_input, error) from error
    return inputs


@contextlib.contextmanager
def observed(modules: Mapping[str, nn.Module], watch: UseOfTensors, record: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Tell ``record`` of every call of some modules (path, input, output), and ``watch`` when one begins and ends."""
    with contextlib.ExitStack() as stack:
        for path, module in modules.items():

            def begin(module: nn.Module, args: tuple[Any, ...], path: str = path) -> None:
                watch.within.append(path)

            def end(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, path: str = path) -> None:
                watch.within.pop()
                record(path, input_of(args, kwargs), output)

            stack.enter_context(module.register_forward_pre_hook(begin, prepend=True))
            stack.enter_context(module.register_forward_hook(end, with_kwargs=True))
        yield


def input_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The first argument of a call, given by position or by name."""
    return next(iter((*args, *kwargs.values())), None)


def _not_accepted(example_input: Any, error: Exception) -> SurgeryError:
    return SurgeryError(f"the network does not accept the example input ({in_words(example_input)}): {one_line(error)}")


def in_words(example_input: Any) -> str:
    """Shapes of an example input, for messages."""
    names = []
    for leaf in tree_leaves(example_input):
        tensor = isinstance(leaf, torch.Tensor)
        names.append(f"{list(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}" if tensor else type(leaf).__name__)
    return ", ".join(names)
