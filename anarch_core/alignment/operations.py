"""What functions of torch do to channels: pass them on, move them, make new ones, or need them where they are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from torch.utils._pytree import tree_leaves, tree_map_only

from anarch_core.alignment import sinks
from anarch_core.alignment.channels import CONSTANT, FIXED, spread
from anarch_core.alignment.following import Followed


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TOLD = _words("""
    size dim ndimension numel nelement stride storage_offset is_contiguous is_floating_point is_complex is_signed element_size get_device
    __len__ shape dtype device layout ndim names requires_grad is_cuda is_cpu is_meta is_mps is_xpu is_sparse is_quantized is_nested is_leaf
    grad grad_fn __repr__ __format__ is_tensor is_grad_enabled retains_grad result_type is_inference is_mkldnn is_conj is_neg itemsize
    nbytes
""")
"""What tells of a tensor nothing that depends on its numbers."""

SINGLE = _words("""
    relu relu6 leaky_relu elu gelu silu selu celu sigmoid tanh softplus mish hardtanh hardswish hardsigmoid logsigmoid softsign tanhshrink
    softshrink hardshrink threshold dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout abs absolute
    neg exp expm1 log log1p sqrt rsqrt square reciprocal sign sin cos erf round floor ceil clamp clip clamp_min clamp_max nan_to_num
    contiguous clone detach to type float double half bfloat16 cpu cuda requires_grad positive __neg__ __pos__ __abs__ rrelu data
""")
"""Functions of each number by itself."""

SEVERAL = _words("""
    add sub subtract mul multiply div divide true_divide maximum minimum pow rsub __add__ __radd__ __iadd__ __sub__ __rsub__ __isub__
    __mul__ __rmul__ __imul__ __truediv__ __rtruediv__ __itruediv__ __pow__ __rpow__ __ipow__ addcmul lerp where
""")
"""Functions of numbers that stand at the same place."""

PRODUCTS = _words("mul multiply __mul__ __rmul__")

MOVED = _words("""
    flatten reshape reshape_as view view_as unflatten permute transpose swapaxes swapdims movedim moveaxis t T mT unsqueeze squeeze
    __getitem__ cat concat concatenate stack chunk split split_with_sizes tensor_split narrow select expand expand_as repeat
    repeat_interleave roll flip unbind rot90 tile broadcast_to hstack vstack
""")
"""Functions that put numbers elsewhere, and compute nothing."""

REDUCED = _words("mean sum amax amin var std logsumexp prod nansum nanmean")
"""Functions that make one number of all along some axes, whatever their order."""

MADE = _words("zeros ones zeros_like ones_like new_zeros new_ones full full_like new_full")
"""Functions that make one constant."""


def understand(followed: Followed, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
    """Say what the channels of a result are."""
    name = _name(func)
    if name in TOLD:
        return
    try:
        labels = _labels(followed, name, func, args, kwargs, result)
    except (TypeError, ValueError, LookupError, RuntimeError, AttributeError):  # called in a way that is not known
        labels = None
    made, found = ([each for each in tree_leaves(value) if isinstance(each, torch.Tensor)] for value in (labels, result))
    if labels is None or [each.shape for each in made] != [each.shape for each in found]:
        followed.give_up((args, kwargs), result, f"what {name} does with channels is not known")
        return
    for tensor, those in zip(found, made, strict=True):
        followed.put(tensor, those)


def _name(func: Any) -> str:
    name = getattr(func, "__name__", "") or type(func).__name__
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return name if name.startswith("__") else name.rstrip("_")


def _labels(followed: Followed, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """The labels of a result, shaped as it; None where they are not known."""
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    if name in SINGLE and len(tensors) == 1:
        return _single(followed, tensors[0], result)
    if name in SINGLE or name in SEVERAL:
        return _several(followed, tensors, name, result)
    if name in MOVED:
        return _moved(followed, func, args, kwargs)
    if name in MADE:
        return torch.full(result.shape, CONSTANT)
    rule = RULES.get(name)
    return None if rule is None else rule(followed, args, kwargs, result)


def _single(followed: Followed, x: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    names = followed.names_of(x)
    if names and x.shape == result.shape:
        followed.is_product(result, names)
        return torch.full(result.shape, FIXED)
    return followed.labels(x)


def _several(followed: Followed, tensors: list[torch.Tensor], name: str, result: torch.Tensor) -> torch.Tensor | None:
    channels = followed.channels
    named = [tensor for tensor in tensors if followed.names_of(tensor)]
    if len(named) == len(tensors):
        if name not in PRODUCTS or any(tensor.shape != result.shape for tensor in tensors):
            return None
        followed.is_product(result, [part for tensor in tensors for part in followed.names_of(tensor)])
        return torch.full(result.shape, FIXED)
    labels = [followed.labels(tensor) for tensor in tensors]
    moving = [each for each in labels if channels.moving(each)]
    constant = [each for each in labels if bool((each == CONSTANT).all())]
    fixed = [tensor for tensor, each in zip(tensors, labels, strict=True) if not any(each is other for other in (*moving, *constant))]
    if not moving:
        return torch.full(result.shape, FIXED if fixed else CONSTANT)
    tied = moving[0]
    for other in moving[1:]:
        tied = channels.tie(tied, other)
    tied = tied.expand(result.shape)
    uneven = [tensor for tensor in fixed if tensor.numel() > 1]
    if not uneven:
        return tied
    return tied if _beside(followed, tied, uneven) else None


def _beside(followed: Followed, tied: torch.Tensor, others: list[torch.Tensor]) -> bool:
    """Numbers that stay where they are, or parameters, meet channels; False where that is not understood."""
    found = followed.channels.axis(tied)
    if found is None:
        return False
    axis, vector = found
    for tensor in others:
        own = axis - (tied.ndim - tensor.ndim)
        if own >= 0 and tensor.shape[own] > 1:
            followed.slot(tensor, own, vector)
    return True


def _moved(followed: Followed, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Labels are moved as the numbers are. Only the tensors that are moved are replaced, not those that say where to."""
    first, rest = (args[0], args[1:]) if args else (next(iter(kwargs.values())), ())
    where = [each for each in tree_leaves((rest, kwargs)) if isinstance(each, torch.Tensor)]
    moved = [each for each in tree_leaves(first) if isinstance(each, torch.Tensor)]
    if (
        not moved
        or any(followed.names_of(each) for each in moved)
        or any(followed.channels.moving(followed.labels(each)) for each in where)
    ):
        return None
    labels = tree_map_only(torch.Tensor, lambda tensor: followed.labels(tensor).contiguous(), first)
    rest, kwargs = (tree_map_only(torch.Tensor, torch.Tensor.cpu, each) for each in (rest, kwargs))
    return func(labels, *rest, **kwargs) if args else func(**{**kwargs, next(iter(kwargs)): labels})


def _pad(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
    def bound(input: torch.Tensor, pad: Any, mode: str = "constant", value: Any = None) -> tuple[torch.Tensor, list[int], str]:
        return input, list(pad), mode

    x, pad, mode = bound(*args, **kwargs)
    if mode == "constant":
        return functional.pad(followed.labels(x), pad, value=CONSTANT)
    found = followed.channels.axis(followed.labels(x))
    if found is None or x.shape[found[0]] != result.shape[found[0]]:
        return None
    return spread(found[1], result.shape, found[0])


def _reduced(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> torch.Tensor | None:
    x, *rest = args
    dims = kwargs.get("dim", kwargs.get("axis", rest[0] if rest else None))
    if not isinstance(result, torch.Tensor) or followed.names_of(x):
        return None
    found = followed.channels.axis(followed.labels(x))
    if found is None:
        return None
    axis, vector = found
    away = {dim % x.ndim for dim in ([dims] if isinstance(dims, int) else list(dims or range(x.ndim)))}
    if axis in away:
        return torch.full(result.shape, FIXED)
    left = axis if result.ndim == x.ndim else axis - sum(dim < axis for dim in away)
    return spread(vector, result.shape, left)


def _pooled(dims: int) -> Callable[..., torch.Tensor | None]:
    def pooled(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> torch.Tensor | None:
        x = args[0] if args else kwargs["input"]
        vector = followed.channels.along(followed.labels(x), x.ndim - dims - 1)
        if vector is None or not isinstance(result, torch.Tensor):
            return None
        return spread(vector, result.shape, x.ndim - dims - 1)

    return pooled


def _resized(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
    vector = followed.channels.along(followed.labels(args[0] if args else kwargs["input"]), 1)
    return None if vector is None else spread(vector, result.shape, 1)


def _along_one_axis(followed: Followed, args: tuple[Any, ...], kwargs: dict[str, Any], result: torch.Tensor) -> torch.Tensor | None:
    """Functions along an axis in which every number has its own place, whatever the order, as softmax."""
    labels = followed.labels(args[0] if args else kwargs["input"])
    return None if followed.channels.axis(labels) is None or math.prod(labels.shape) == 0 else labels


POOLS = ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool", "lp_pool")
RULES: dict[str, Callable[..., torch.Tensor | None]] = {
    "pad": _pad,
    "interpolate": _resized,
    "upsample": _resized,
    "softmax": _along_one_axis,
    "log_softmax": _along_one_axis,
    "normalize": _along_one_axis,
    **{f"{kind}{dims}d": _pooled(dims) for kind in POOLS for dims in (1, 2, 3)},
    **dict.fromkeys(REDUCED, _reduced),
    **sinks.RULES,
}
