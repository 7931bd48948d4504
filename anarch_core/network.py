"""Look at a network, put weights into it for a while, and leave it exactly as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from anarch_core.errors import ProbeError

__all__ = ["undisturbed", "with_parameters"]


@contextmanager
def in_evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode, and every module back in its own, a mixed one too."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in evaluation mode, in full precision, and undo every trace of what happens inside.

    On leaving, the mode of every module, the ``grad`` of every parameter, the buffers and the random state of the CPU and of
    the model's device are what they were. Parameters are not copied: measurements substitute them with
    :func:`torch.func.functional_call` and never write to them. Inside, autocast and TF32 are off, so that curvature is not measured
    through rounding of 1e-3, and gradients can be taken even where the caller switched them off.

    Args:
        model: the network; may be in any mode, also a mixed one.
    """
    parameters = list(model.parameters())
    gradients = [(parameter, parameter.grad) for parameter in parameters]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    accelerators = sorted({parameter.device.index or 0 for parameter in parameters if parameter.device.type == "cuda"})
    matmul = torch.get_float32_matmul_precision()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=accelerators))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device_type in {parameter.device.type for parameter in parameters}:
            stack.enter_context(torch.autocast(device_type, enabled=False))
        if accelerators:
            cudnn = torch.backends.cudnn
            stack.enter_context(
                cudnn.flags(enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False)
            )
        torch.set_float32_matmul_precision("highest")
        stack.enter_context(in_evaluation_mode(model))
        for parameter in parameters:
            parameter.grad = None
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(matmul)
            for parameter, gradient in gradients:
                parameter.grad = gradient
            with torch.no_grad():
                for buffer, value in buffers:
                    if not torch.equal(buffer, value):  # writing what is there already would invalidate graphs that are kept
                        buffer.copy_(value)


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
    memo: dict[int, nn.Parameter] = {id(parameter): parameter for parameter in parameters.values()}
    for name, tensor in tensors.items():
        if name not in parameters or parameters[name].shape != tensor.shape:
            found = list(parameters[name].shape) if name in parameters else "no such parameter"
            msg = f"cannot put a tensor of shape {list(tensor.shape)} in place of {name!r}: {found}"
            raise ProbeError(msg)
        memo[id(parameters[name])] = nn.Parameter(tensor.detach(), requires_grad=False)
    return copy.deepcopy(model, memo)


def network_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers of a network."""
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])
