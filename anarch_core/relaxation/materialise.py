"""Folding what computes a convolution's weight into the weight itself.

Weight norm, spectral norm, pruning masks and weight standardisation compute the weight of a convolution anew in every forward pass, from
parameters of another shape. What such a layer computes at this moment is a plain convolution: seen from outside, by watching the one
convolution that it calls.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from anarch_core.errors import one_line
from anarch_core.lattice.geometry import ConvGeometry, Convolution
from anarch_core.network import unchanged
from anarch_core.relaxation.lattice import CONVOLUTIONS
from anarch_core.relaxation.outputs import deviation, rounding


def convolution_of(module: nn.Module, input_shape: tuple[int, ...]) -> Convolution | str:
    """The plain convolution that a module computes at this moment, or why it computes none.

    Args:
        module: a convolution of PyTorch or of a subclass, parametrized, with hooks, or with a forward of its own; in any mode. Not changed.
        input_shape: of its input without the batch dimension, [channels, *spatial].

    Returns:
        a convolution whose weight and bias are what ``module`` calls its convolution with, equal to it on random inputs; trained where any
        parameter of ``module`` is. Where there is none, the end of the sentence "features.0 cannot be relaxed: ...".
    """
    if not isinstance(module, CONVOLUTIONS):
        return f"it is a {type(module).__name__}, no convolution of PyTorch, and cannot be materialised"
    like = next(module.parameters())
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(2, *input_shape, generator=generator, dtype=torch.float32, device="cpu").to(like)
    try:
        with unchanged(module), torch.no_grad(), _Convolutions() as seen:
            expected = module(x)
    except Exception as raised:  # whatever a module may raise
        return f"it cannot be materialised: it raises {one_line(raised)}"
    if len(seen.calls) != 1:
        return f"it cannot be materialised: it calls {len(seen.calls)} convolutions, expected one"
    weight, bias = seen.calls[0]
    plain = ConvGeometry.of(module, tuple(input_shape[1:])).convolution(like)
    if weight.shape != plain.weight.shape or (bias is None) != (plain.bias is None):
        return f"it cannot be materialised: it calls a convolution with a weight of {list(weight.shape)}, not {list(plain.weight.shape)}"
    with torch.no_grad():
        plain.weight.copy_(weight)
        if plain.bias is not None and bias is not None:
            plain.bias.copy_(bias)
        error = deviation(plain(x), expected) if _fits(plain, input_shape) else float("inf")
    if error is None or error > rounding(like.dtype):
        return (
            "it cannot be materialised: what it computes is not a plain convolution of its input (padding, scaling or hooks of its own "
            f"change the result by {error if error is None else f'{error:.1e}'})"
        )
    trained = any(parameter.requires_grad for parameter in module.parameters())
    for parameter in plain.parameters():
        parameter.requires_grad_(trained)
    return plain.train(module.training)


def _fits(conv: Convolution, input_shape: tuple[int, ...]) -> bool:
    return all(axis.positions > 0 for axis in ConvGeometry.of(conv, tuple(input_shape[1:])).axes)


def made_of(module: nn.Module) -> str:
    """What computes the weight of a module that is not a plain convolution, in words."""
    if parametrize.is_parametrized(module):
        lists = cast(dict[str, Any], module.parametrizations)
        names = [type(part).__name__.strip("_") for key in lists for part in lists[key]]
        return f"{' and '.join(names)}, which computed its {' and '.join(lists)}"
    hooks = [hook for kind in ("_forward_pre_hooks", "_forward_hooks") for hook in getattr(module, kind).values()]
    if hooks:
        return f"its hooks ({', '.join(getattr(hook, '__name__', type(hook).__name__) for hook in hooks)})"
    return f"the forward of {type(module).__name__}"


class _Convolutions(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps the weight and the bias of every convolution that is computed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[torch.Tensor, torch.Tensor | None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.calls.append((args[1].detach().clone(), None if args[2] is None else args[2].detach().clone()))
        return func(*args, **(kwargs or {}))
