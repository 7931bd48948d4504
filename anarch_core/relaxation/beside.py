"""Running a relaxed network with the layers of its parent beside its own."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import nn
from torch.utils._pytree import tree_map_only

from anarch_core.errors import SurgeryError, one_line
from anarch_core.relaxation.outputs import deviations, largest, leaves_of, numbers_in
from anarch_core.relaxation.report import refusal_of
from anarch_core.relaxation.surgery import owner
from anarch_core.relaxation.trace import Trace, in_words, run
from anarch_core.relaxation.watch import UseOfTensors

HELD = (
    "something that copying does not reach holds on to it, such as a closure (self.f = lambda x: self.conv(x)), a compiled function or a "
    "global; let forward call the layer as an attribute"
)


@attrs.frozen(kw_only=True)
class Passage:
    """One pass of the relaxed network.

    Attributes:
        outputs: the numbers it returned.
        errors: of every call of every relaxed layer, by path; None where nothing could be compared.
    """

    outputs: Sequence[torch.Tensor]
    errors: Mapping[str, Sequence[float | None]]


def run_beside(trace: Trace, parent: nn.Module, new: nn.Module, paths: Sequence[str], example_input: Any) -> Passage:
    """Run the relaxed network as its parent was run, and compare each layer as it is called.

    A layer is given a copy of what it was called with, and its output is looked at before anybody else can change it.

    Args:
        trace: the parent's pass.
        parent: the network that was relaxed.
        new: the relaxed network.
        paths: of the layers that were replaced.
        example_input: as for the parent's pass.

    Raises:
        SurgeryError: the relaxed network raises an error, calls a layer more or less often than its parent, or still uses something of it.
    """
    errors: dict[str, list[float | None]] = {path: [] for path in paths}
    watch = UseOfTensors(_tensors_of(parent, new))
    running: list[str] = []
    with contextlib.ExitStack() as stack:
        for path in paths:
            stack.enter_context(_compared(parent.get_submodule(path), new.get_submodule(path), watch, errors[path], running, path))
        stack.enter_context(trace.manner.apply(parent))
        stack.enter_context(trace.manner.apply(new))
        stack.enter_context(watch)
        try:
            outputs = run(new, example_input)
        except Exception as error:
            where = f"its layer {running[-1]} raises" if running else "it raises"
            msg = (
                f"the relaxed network does not run on the example input ({in_words(example_input)}), where its parent does: "
                f"{where} {one_line(error)}"
            )
            raise SurgeryError(msg, paths=tuple(running[-1:])) from error
    _require_same_use(trace, errors, watch)
    return Passage(outputs=outputs, errors=errors)


def _tensors_of(parent: nn.Module, new: nn.Module) -> Iterator[tuple[torch.Tensor, str]]:
    """Parameters and buffers of the parent, with their names."""
    own = {id(tensor) for tensor in [*new.parameters(), *new.buffers()]}
    for name, tensor in [*parent.named_parameters(), *parent.named_buffers()]:
        if id(tensor) not in own:
            yield tensor, name


def _require_same_use(trace: Trace, errors: Mapping[str, Sequence[object]], watch: UseOfTensors) -> None:
    """Refuse where a layer is not called as often as its parent, or where the parent's tensors are used."""
    reasons = {}
    for path, calls in errors.items():
        expected = len(trace.calls[path])
        if len(calls) != expected:
            times = "time" if expected == 1 else "times"
            reasons[path] = f"the relaxed network calls it {len(calls)} times on the example, its parent {expected} {times}; " + (
                HELD if len(calls) < expected else "its calls depend on something outside of the network"
            )
    for name, operation in watch.used.items():
        if owner(name, reasons) is None:
            layer = name.rpartition(".")[0]
            reasons[layer] = f"the relaxed network goes on using {name} of the network it came from ({operation}); {HELD}"
    if reasons:
        raise SurgeryError(refusal_of(reasons), paths=tuple(reasons))


@contextlib.contextmanager
def _compared(
    old: nn.Module, layer: nn.Module, watch: UseOfTensors, errors: list[float | None], running: list[str], path: str
) -> Iterator[None]:
    """Call the parent's layer whenever the relaxed one is called, on the same inputs and random numbers."""
    given: list[tuple[Any, Any, Callable[[], contextlib.AbstractContextManager[None]]]] = []

    def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
        given.append((*_copied((args, kwargs)), _random_state(layer)))
        running.append(path)
        watch.quiet += 1

    def end(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        running.pop()
        old_args, old_kwargs, same_randomness = given.pop()
        with same_randomness():
            expected = old(*old_args, **old_kwargs)
        errors.append(largest(deviations(numbers_in(output), numbers_in(expected))))
        watch.quiet -= 1

    with layer.register_forward_pre_hook(begin, with_kwargs=True, prepend=True), layer.register_forward_hook(end, with_kwargs=True):
        yield


def _copied(given: tuple[Any, Any]) -> tuple[Any, Any]:
    """Arguments once more, with objects that a layer changes, as a cache of keys and values, where they can be copied."""
    leaves = list(leaves_of(given))
    clones: dict[int, Any] = {id(leaf): leaf.clone() for leaf in leaves}
    try:
        return copy.deepcopy(given, clones)
    except Exception:  # whatever copying an object of others may raise
        args, kwargs = tree_map_only(torch.Tensor, torch.clone, given)
        return args, kwargs


def _random_state(layer: nn.Module) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """What goes back to the random numbers as they are now, for a while."""
    devices = sorted({tensor.device.index or 0 for tensor in layer.parameters() if tensor.device.type == "cuda"})
    state = torch.get_rng_state()
    states = [torch.cuda.get_rng_state(device) for device in devices]

    @contextlib.contextmanager
    def restored() -> Iterator[None]:
        with torch.random.fork_rng(devices=devices):
            torch.set_rng_state(state)
            for device, held in zip(devices, states, strict=True):
                torch.cuda.set_rng_state(held, device)
            yield

    return restored


def perturbed(trace: Trace, passage: Passage, parent: nn.Module, example_input: Any, seed: int) -> list[torch.Tensor]:
    """The parent's outputs when those of the layers that were replaced are off by as much as the relaxed layers are, at random."""
    generator = torch.Generator("cpu").manual_seed(seed)
    with contextlib.ExitStack() as stack:
        for path, measured in passage.errors.items():

            def shake(module: nn.Module, args: Any, output: Any, error: float = largest(measured) or 0.0) -> Any:
                return _shaken(output, error, generator)

            stack.enter_context(parent.get_submodule(path).register_forward_hook(shake))
        stack.enter_context(trace.manner.apply(parent))
        return run(parent, example_input)


def _shaken(output: Any, error: float, generator: torch.Generator) -> Any:
    """A copy of what a layer returned whose numbers are off by ``error``, relative to the largest of their tensor, at random."""
    leaves = list(leaves_of(output))
    new: dict[int, Any] = {id(leaf): leaf for leaf in leaves}
    for leaf in leaves:
        if leaf.layout == torch.strided and not leaf.is_nested and (leaf.is_floating_point() or leaf.is_complex()) and leaf.numel():
            size = max(error, torch.finfo(leaf.dtype).eps) * leaf.abs().max()
            noise = 2 * torch.rand(leaf.shape, generator=generator, device="cpu") - 1
            new[id(leaf)] = leaf + size * noise.to(leaf.device, leaf.dtype)
    try:
        return copy.deepcopy(output, new)  # whatever it is made of, with other tensors in it
    except Exception:  # it cannot be copied
        return output
