"""Functions of torch that have weights: which axis of which tensor their channels lie along."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from anarch_core.alignment.channels import spread
from anarch_core.alignment.following import Followed


def _convolution(transposed: bool) -> Callable[..., torch.Tensor | None]:
    def conv(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
        return input, weight, bias, groups

    def conv_transpose(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
    ) -> Any:
        return input, weight, bias, groups

    def rule(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
        x, weight, bias, groups = (conv_transpose if transposed else conv)(*args, **kwargs)
        axis = x.ndim - (weight.ndim - 1)
        vector = followed.channels.along(followed.labels(x), axis)
        if vector is None or not followed.names_of(weight):
            return None
        outgoing = _through(followed, weight, vector, result.shape[axis], groups, transposed)
        followed.slot(bias, 0, outgoing)
        return spread(outgoing, result.shape, axis)

    return rule


def _through(followed: Followed, weight: torch.Tensor, incoming: torch.Tensor, outputs: int, groups: int, transposed: bool) -> torch.Tensor:
    """The channels that come out of a convolution."""
    inputs = len(incoming)
    if groups > 1 and groups == inputs == outputs:
        followed.slot(weight, 0, incoming)
        return incoming
    outgoing = followed.channels.fresh(outputs)
    first, second = (incoming, outgoing) if transposed else (outgoing, incoming)
    if groups == 1:
        followed.slot(weight, 0, first)
        followed.slot(weight, 1, second)
        return outgoing
    for group, (own, others) in enumerate(zip(first.chunk(groups), second.chunk(groups), strict=True)):
        start, count = group * len(own), len(own)

        def block(tensor: torch.Tensor, start: int = start, count: int = count) -> torch.Tensor:
            return tensor.narrow(0, start, count)

        followed.slot(weight, 0, own, view=block, key=(group,))
        followed.slot(weight, 1, others, view=block, key=(group,))
    return outgoing


def _linear(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
    def bound(input: Any, weight: Any, bias: Any = None) -> Any:
        return input, weight, bias

    x, weight, bias = bound(*args, **kwargs)
    vector = followed.channels.along(followed.labels(x), -1)
    if vector is None or not followed.names_of(weight):
        return None
    outgoing = followed.channels.fresh(result.shape[-1])
    followed.slot(weight, 1, vector)
    followed.slot(weight, 0, outgoing)
    followed.slot(bias, 0, outgoing)
    return spread(outgoing, result.shape, -1)


def _embedding(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
    def bound(input: Any, weight: Any, *rest: Any, **more: Any) -> Any:
        return input, weight

    x, weight = bound(*args, **kwargs)
    if followed.channels.moving(followed.labels(x)) or not followed.names_of(weight):
        return None
    outgoing = followed.channels.fresh(result.shape[-1])
    followed.slot(weight, 1, outgoing)
    return spread(outgoing, result.shape, -1)


def _channelwise(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
    """Normalisation with numbers of each channel: batch norm and instance norm."""

    def bound(
        input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None, *rest: Any, **more: Any
    ) -> Any:
        return input, (running_mean, running_var, weight, bias)

    x, tensors = bound(*args, **kwargs)
    vector = followed.channels.along(followed.labels(x), 1)
    if vector is None:
        return None
    for tensor in tensors:
        followed.slot(tensor, 0, vector)
    return spread(vector, result.shape, 1)


def _group_norm(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
    def bound(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
        return input, num_groups, weight, bias

    x, groups, weight, bias = bound(*args, **kwargs)
    vector = followed.channels.along(followed.labels(x), 1)
    if vector is None:
        return None
    for group, channels in enumerate(vector.chunk(groups) if 1 < groups < len(vector) else ()):
        followed.fence((followed.path[-1], "group", group), channels)
    followed.slot(weight, 0, vector)
    followed.slot(bias, 0, vector)
    return spread(vector, result.shape, 1)


def _layer_norm(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
    def bound(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: Any = None) -> Any:
        return input, normalized_shape, weight, bias

    x, shape, weight, bias = bound(*args, **kwargs)
    found = followed.channels.axis(followed.labels(x))
    if found is None:
        return None
    axis, vector = found
    own = axis - (x.ndim - len(shape))
    if own >= 0:
        followed.slot(weight, own, vector)
        followed.slot(bias, own, vector)
    return spread(vector, result.shape, axis)


def _prelu(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
    def bound(input: Any, weight: Any) -> Any:
        return input, weight

    x, weight = bound(*args, **kwargs)
    vector = followed.channels.along(followed.labels(x), 1)
    if vector is None or weight.numel() == 1:
        return followed.labels(x)
    followed.slot(weight, 0, vector)
    return spread(vector, result.shape, 1)


RULES: dict[str, Callable[..., torch.Tensor | None]] = {
    **{f"conv{dims}d": _convolution(False) for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": _convolution(True) for dims in (1, 2, 3)},
    "linear": _linear,
    "embedding": _embedding,
    "batch_norm": _channelwise,
    "instance_norm": _channelwise,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "prelu": _prelu,
}
