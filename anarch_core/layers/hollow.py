"""Modules without the numbers of their parameters: what a module is made of, to be filled again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import torch
from torch import nn

from anarch_core.network import copied

M = TypeVar("M", bound=nn.Module)


def hollow_copy(module: M) -> M:
    """A copy whose parameters are on the meta device; buffers are as they are. Parameters that are one stay one."""
    memo = {
        id(parameter): nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=parameter.requires_grad)
        for parameter in module.parameters()
    }
    return cast(M, copied(module, dict(memo)))


@torch.no_grad()
def filled(hollow: M, parameters: Mapping[str, torch.Tensor], trained: Mapping[str, bool], buffers: Mapping[str, torch.Tensor]) -> M:
    """A module made of a hollow one.

    Args:
        hollow: as :func:`hollow_copy` gives it; not changed.
        parameters: numbers by name; copied.
        trained: whether each is to be trained.
        buffers: take the place of the hollow module's own where name and shape are the same; copied.
    """
    values = {id(parameter): (parameters[name], trained[name]) for name, parameter in hollow.named_parameters()}
    like = next(iter(parameters.values()))
    memo: dict[int, Any] = {key: nn.Parameter(value.clone(), requires_grad=train) for key, (value, train) in values.items()}
    for name, buffer in hollow.named_buffers():
        current = buffers.get(name)
        if current is not None and current.shape == buffer.shape:
            memo[id(buffer)] = current.clone()
        else:
            memo[id(buffer)] = buffer.to(like.device, like.dtype if buffer.is_floating_point() else buffer.dtype, copy=True)
    return cast(M, copied(hollow, memo))
