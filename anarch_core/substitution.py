"""A network with other weights, without touching the network."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from anarch_core.errors import ProbeError


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
