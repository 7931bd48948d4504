"""Look at a network, put weights into it for a while, copy it, and leave it exactly as it was."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from anarch_core.errors import ProbeError, SurgeryError
from anarch_core.float32_products import float32_products
from anarch_core.network_state import NetworkState

__all__ = ["copied", "undisturbed", "with_parameters"]

LOCKS: Mapping[type, Callable[[], Any]] = {
    type(threading.Lock()): threading.Lock,
    type(threading.RLock()): threading.RLock,
    threading.Condition: threading.Condition,
}
"""Makers of locks that have no state but being held."""

COMPILED = "_orig_mod"
"""What the wrapper of ``torch.compile`` calls the network inside."""


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Put ``model`` in training or evaluation mode, and every module back in its own, a mixed one too."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, mode in modes:  # from the root down: a train() of its own may do more than set flags, and reaches the children
            if module.training != mode:
                module.train(mode)
                module.training = mode


def in_evaluation_mode(model: nn.Module) -> AbstractContextManager[None]:
    """Put ``model`` in evaluation mode, and every module back in its own, a mixed one too."""
    return in_mode(model, training=False)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Run ``model`` as it is, in full precision, and undo every trace of what happens inside.

    On leaving, ``grad``, ``requires_grad`` and hooks of every parameter, the buffers, what the modules hold as attributes (and inside of
    dictionaries and lists among them) and the random state of Python, NumPy, the CPU and the model's device are what they were. Inside,
    autocast and TF32 are off, and gradients can be taken even where the caller switched them off.

    Args:
        model: the network; may be in any mode, also a mixed one.
    """
    parameters = list(model.parameters())
    before = NetworkState.of(model)
    accelerators = sorted({parameter.device.index or 0 for parameter in parameters if parameter.device.type == "cuda"})
    python, numpy = random.getstate(), np.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=accelerators))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {parameter.device.type for parameter in parameters} - {"meta"}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(float32_products(tf32=False))
        for parameter in parameters:
            parameter.grad = None
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            before.restore()


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode, in full precision, and undo every trace of what happens inside.

    As :func:`unchanged`, and the mode of every module is what it was, too. Parameters are not copied: measurements substitute them with
    :func:`torch.func.functional_call` and never write to them. Precision is full so that curvature is not measured through rounding of
    1e-3.

    Args:
        model: the network; may be in any mode, also a mixed one.
    """
    with unchanged(model), in_evaluation_mode(model):
        yield


def with_parameters(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> nn.Module:
    """The same network with other tensors in place of some parameters.

    Parameters that are not named are those of ``model`` itself, not copies, so that the new network costs no more than what is new; buffers
    are copied. Measure with it, do not train it.

    Args:
        model: never changed.
        tensors: by parameter name, shaped as the parameters; taken as they are.

    Raises:
        ProbeError: there is no such parameter, or its shape is another.
    """
    parameters = dict(model.named_parameters())
    memo: dict[int, Any] = {id(parameter): parameter for parameter in parameters.values()}
    for name, tensor in tensors.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            found = list(parameters[name].shape) if name in parameters else "no such parameter"
            msg = f"cannot put a tensor of shape {list(tensor.shape)} in place of {name!r}: {found}"
            raise ProbeError(msg)
        memo[id(parameters[name])] = nn.Parameter(tensor.detach(), requires_grad=False)
    return copied(model, memo)


def network_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers of a network."""
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def copied(model: nn.Module, memo: dict[int, Any] | None = None) -> nn.Module:
    """A copy of a network, faithful where ``copy.deepcopy`` alone is not.

    Activations that a module keeps are copied without their history, locks are new ones, and a traced graph keeps the one of its mode. The
    copy is in the mode of the network, a mixed one too.

    Args:
        model: never changed.
        memo: as for ``copy.deepcopy``: id of an object -> what takes the place of its copy; for a module, of all that is inside it.

    Raises:
        SurgeryError: a module holds something that cannot be copied.
    """
    memo = {} if memo is None else memo
    given = [module for module in model.modules() if id(module) in memo]
    inside = {id(module) for outer in given for module in outer.modules()}
    own = [module for module in model.modules() if id(module) not in inside]
    for module in own:
        for value in vars(module).values():
            memo.update((id(held), substitute) for held, substitute in _substitutes(value, 3) if id(held) not in memo)
    seeds = dict(memo)  # a copy that fails leaves halves behind
    try:
        made: nn.Module = copy.deepcopy(model, memo)
    except Exception as error:
        raise _uncopied(model, own, seeds, error) from error
    # What copies itself (a __deepcopy__ of its own) may leave no trace in the memo; it is as its author wants it.
    twins = [(module, memo[id(module)]) for module in own if isinstance(memo.get(id(module)), nn.Module)]
    lost = {id(module) for module, twin in twins if COMPILED in module._modules and COMPILED not in twin._modules}
    for path, module in model.named_modules():
        if id(module) in lost:
            msg = f"{path} cannot be copied, which is needed here: copies of what it holds are not compiled; compile it afterwards"
            raise SurgeryError(msg, paths=(path,))
    for module, twin in twins:
        if isinstance(module, fx.GraphModule):
            _complete(module, twin, memo)
    for module, twin in twins:
        twin.training = module.training
    return made


def _substitutes(value: Any, depth: int) -> Iterator[tuple[Any, Any]]:
    """What ``copy.deepcopy`` refuses, inside an attribute and the containers it may be in, with what takes its place."""
    if isinstance(value, torch.Tensor):
        if not value.is_leaf:
            yield value, value.detach().clone()
    elif isinstance(value, threading.Event):
        fresh = threading.Event()
        if value.is_set():
            fresh.set()
        yield value, fresh
    elif (kind := LOCKS.get(type(value))) is not None:
        yield value, kind()
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from _substitutes(item, depth - 1)
    elif depth and isinstance(value, list | tuple | set):
        for item in value:
            yield from _substitutes(item, depth - 1)


def _complete(module: fx.GraphModule, copied: Any, memo: Mapping[int, Any]) -> None:
    """Give the copy of a traced graph what copying lost: attributes that a subclass added, and the graph of the mode it is in."""
    for name, value in vars(module).items():
        if name not in vars(copied):
            setattr(copied, name, copy.deepcopy(value, dict(memo)))
    copied.train(not module.training)
    copied.train(module.training)


def _uncopied(model: nn.Module, modules: Sequence[nn.Module], memo: Mapping[int, Any], error: Exception) -> SurgeryError:
    """Names the module and the attribute that cannot be copied."""
    paths = {id(module): path for path, module in model.named_modules()}
    for module in modules:
        for name, value in vars(module).items():
            if name == "_modules":
                continue
            try:
                copy.deepcopy(value, dict(memo))
            except Exception as reason:
                path = paths[id(module)] or "the network"
                msg = f"{path} cannot be copied, which is needed here: its attribute {name} is a {type(value).__name__} ({reason})"
                return SurgeryError(msg, paths=(paths[id(module)],))
    return SurgeryError(f"the network cannot be copied, which is needed here: {error}")


def unwrapped(model: nn.Module) -> nn.Module:
    """The network inside ``torch.compile``, ``DataParallel`` and ``DistributedDataParallel``, in any order; others as they are."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(model._modules.get(COMPILED), nn.Module):
            model = model.get_submodule(COMPILED)
        else:
            return model
