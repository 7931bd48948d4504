"""Networks whose derivatives have derivatives: kernels that can be differentiated twice, and the layers that cannot be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves

from anarch_core.errors import ProbeError, first_line
from anarch_core.network import undisturbed


@contextmanager
def differentiable(model: nn.Module) -> Iterator[None]:
    """Have a network computed by kernels that autograd can differentiate, in evaluation mode and more than once.

    The fused kernels of attention have no second derivative, the fast path of transformer layers in evaluation mode has none at all and
    gives zeros for tokens that are masked, and the recurrent layers of cuDNN have no second derivative and no first one in evaluation
    mode. Attention is computed by its formula instead, and recurrent layers by PyTorch's own kernels; both are the same function.

    Args:
        model: the network that is computed inside; never changed.
    """
    fast, cudnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    torch.backends.mha.set_fastpath_enabled(False)
    torch.backends.cudnn.enabled = cudnn and not recurrent
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cudnn.enabled = cudnn
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def telling_layers(model: nn.Module, inputs: torch.Tensor) -> Iterator[None]:
    """Where differentiating a network fails inside, say which of its layers cannot be differentiated twice.

    Args:
        model: the network.
        inputs: that it takes, [n, ...].

    Raises:
        ProbeError: there are such layers; errors of any other cause are left as they are.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        refused = once_differentiable(model, inputs[:2])
        if not refused:
            raise
        layers = ", ".join(f"{path or 'the network'} ({kind})" for path, kind in refused.items())
        msg = (
            f"curvature needs second derivatives, and {layers} cannot be differentiated twice ({first_line(error)}); write what "
            "it computes in operations whose backward pass is differentiable, and measure a network as it is before torch.compile"
        )
        raise ProbeError(msg) from error


def require_whole(slopes: Sequence[torch.Tensor | None]) -> None:
    """See that no backward pass cut derivatives off from what they depend on, where autograd would take zero for what is missing.

    Args:
        slopes: vector-Jacobian products taken with ``create_graph``, of a vector that requires a gradient and is nowhere zero; None where
            nothing depends on an input.

    Raises:
        RuntimeError: one did.
    """
    # A slope without a graph is a constant: zero where a function is flat (a rounding), else computed behind autograd's back.
    if any(slope is not None and not slope.requires_grad and bool(slope.any()) for slope in slopes):
        msg = "a backward pass is computed without a graph"
        raise RuntimeError(msg)
    if "torch::autograd::Error" in _nodes(slopes):  # leads to no parameter, so torch.autograd.grad passes over it
        msg = "a backward pass is marked with @once_differentiable"
        raise RuntimeError(msg)


def require_visible(loss: torch.Tensor) -> None:
    """See that autograd knows of all that a loss depends on.

    Args:
        loss: scalar with a graph.

    Raises:
        ProbeError: part of it was computed under reentrant checkpointing, which hides its parameters from :func:`torch.autograd.grad`.
    """
    if "CheckpointFunctionBackward" in _nodes([loss]):
        msg = (
            "the network computes part of its outputs under reentrant checkpointing, where derivatives by the parameters inside would be "
            "taken for zero; let it call torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
        )
        raise ProbeError(msg)


def _nodes(tensors: Sequence[torch.Tensor | None]) -> set[str]:
    """Names of the operations in the graphs of tensors."""
    nodes: list[Any] = [tensor.grad_fn for tensor in tensors if tensor is not None]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is not None and node not in seen:
            seen.add(node)
            nodes.extend(following for following, _ in node.next_functions)
    return {node.name() for node in seen}


def once_differentiable(model: nn.Module, inputs: torch.Tensor) -> dict[str, str]:
    """The innermost modules whose second derivatives autograd cannot take, by path, with the names of their classes.

    Args:
        model: left as it was.
        inputs: that it takes, [n, ...].
    """
    refused: dict[str, str] = {}
    paths = {module: path for path, module in model.named_modules()}

    def differentiate(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: Any) -> None:
        if not _twice_differentiable([*module.parameters(), *tree_leaves((args, kwargs))], tree_leaves(outputs)):
            refused[paths[module]] = type(module).__name__

    with ExitStack() as stack:
        for module in paths:
            stack.enter_context(module.register_forward_hook(differentiate, with_kwargs=True))
        with suppress(RuntimeError), undisturbed(model), differentiable(model):  # where it does not get through, what was found stands
            model(inputs)
    return {path: kind for path, kind in refused.items() if not any(_holds(path, other) for other in refused)}


def _holds(path: str, other: str) -> bool:
    return path != other and (not path or other.startswith(f"{path}."))


def _twice_differentiable(given: list[Any], results: list[Any]) -> bool:
    """Whether the gradient of results with respect to what was given has a gradient."""
    leaves = [leaf for leaf in given if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    scalars = [leaf.square().sum() for leaf in results if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    if not leaves or not scalars:
        return True
    try:
        slopes = torch.autograd.grad(scalars, leaves, create_graph=True, allow_unused=True)
        require_whole(slopes)
        squares = [slope.square().sum() for slope in slopes if slope is not None and slope.requires_grad]
        if squares:
            torch.autograd.grad(squares, leaves, allow_unused=True, retain_graph=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return False
    return True
