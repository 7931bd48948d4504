"""Running a network on an example, and watching what it does with some of its layers."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import attrs
import torch
from torch import nn
from torch.utils._pytree import tree_leaves, tree_map_only

from anarch_core.errors import SurgeryError, one_line
from anarch_core.network import in_mode, unchanged
from anarch_core.relaxation.outputs import numbers_in
from anarch_core.relaxation.watch import UseOfTensors

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""Of a call: those by position, and those by name."""


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
        arguments: by position and by name: tensors without numbers, all else as it is; None where such tensors cannot be made.
        input_shape: of its first argument, with the batch dimension, if there is one; None where that is no tensor.
        output_shape: likewise of what it returned.
        alone: whether its first argument is the only tensor it was given.
        dtypes: of the real numbers it returned.
        odd: why it is no map of one tensor to another, as the end of the sentence "features.0 cannot be relaxed: ..."; empty where it is.
    """

    arguments: Arguments | None
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    alone: bool
    dtypes: frozenset[torch.dtype]
    odd: str

    @classmethod
    def of(cls, arguments: Arguments | None, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Call:
        """A call that has ended; ``arguments`` are those without numbers, as they were when it began."""
        given = input_of(args, kwargs)
        shapes = [tuple(value.shape) if isinstance(value, torch.Tensor) else None for value in (given, output)]
        odd = f"it is given a {type(given).__name__} and returns a {type(output).__name__}, not a tensor for a tensor"
        return cls(
            arguments=arguments,
            input_shape=shapes[0],
            output_shape=shapes[1],
            alone=len(_tensors((args, kwargs))) == 1,
            dtypes=frozenset(tensor.dtype for tensor in _tensors(output) if tensor.is_floating_point()),
            odd=odd if None in shapes else "",
        )


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

    def record(path: str, output: Any, call: Call) -> None:
        if isinstance(output, Iterator):
            odd[path] = f"it returns a {type(output).__name__}, which can be looked at only once"
        calls[path].append(call)

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
                given = input_of(args, kwargs)
                if isinstance(given, torch.Tensor):
                    inputs[path].append(given.detach().clone())

            stack.enter_context(model.get_submodule(path).register_forward_pre_hook(record, with_kwargs=True))
        stack.enter_context(Manner(training=False).apply(model))
        try:
            run(model, example_input)
        except Exception as error:
            raise _not_accepted(example_input, error) from error
    return inputs


@contextlib.contextmanager
def observed(modules: Mapping[str, nn.Module], watch: UseOfTensors, record: Callable[[str, Any, Call], None]) -> Iterator[None]:
    """Tell ``record`` of every call of some modules (path, output, call), and ``watch`` when one begins and ends."""
    given: list[Arguments | None] = []
    with contextlib.ExitStack() as stack:
        for path, module in modules.items():

            def begin(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: str = path) -> None:
                watch.within.append(path)
                given.append(_hollow((args, kwargs)))

            def end(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, path: str = path) -> None:
                watch.within.pop()
                record(path, output, Call.of(given.pop(), args, kwargs, output))

            stack.enter_context(module.register_forward_pre_hook(begin, prepend=True, with_kwargs=True))
            stack.enter_context(module.register_forward_hook(end, with_kwargs=True))
        yield


def input_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The first argument of a call, given by position or by name."""
    return next(iter((*args, *kwargs.values())), None)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _hollow(arguments: Arguments) -> Arguments | None:
    """Arguments of a call with tensors that hold no numbers; None where there are none of their kind."""

    def hollow(tensor: torch.Tensor) -> torch.Tensor:
        strides = tensor.stride() if tensor.layout == torch.strided else None
        if strides is None:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        return torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device="meta")

    try:
        return cast(Arguments, tree_map_only(torch.Tensor, hollow, arguments))
    except Exception:  # a nested or quantised tensor, or something that looks at its numbers (a packed sequence)
        return None


def _not_accepted(example_input: Any, error: Exception) -> SurgeryError:
    return SurgeryError(f"the network does not accept the example input ({in_words(example_input)}): {one_line(error)}")


def in_words(example_input: Any) -> str:
    """Shapes of an example input, for messages."""
    names = []
    for leaf in tree_leaves(example_input):
        tensor = isinstance(leaf, torch.Tensor)
        names.append(f"{list(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}" if tensor else type(leaf).__name__)
    return ", ".join(names)
