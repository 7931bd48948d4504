"""What a call of a module leaves behind for the next one."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from anarch_core.layers import relaxed_layers
from anarch_core.network import copied
from anarch_core.relaxation import Site


def changed_by_a_call(site: Site) -> list[str]:
    """Buffers that one call of a layer in training mode changes, by name; empty where that cannot be told.

    Running statistics of normalisation layers are left out: in training mode nothing reads them, in evaluation mode nothing changes them.
    """
    if site.arguments is None:
        return []
    tensors = [*site.module.parameters(), *site.module.buffers()]
    hollow = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in tensors}
    for parameter in site.module.parameters():
        hollow[id(parameter)] = nn.Parameter(hollow[id(parameter)], requires_grad=False)
    twin = copied(site.module, dict(hollow)).train()
    for layer in relaxed_layers(twin).values():
        layer.begin_pass()
    statistics = {id(buffer) for module in twin.modules() if isinstance(module, _NormBase) for buffer in module.buffers(recurse=False)}
    before = {name: (buffer, buffer._version) for name, buffer in twin.named_buffers() if id(buffer) not in statistics}
    args, kwargs = site.arguments
    try:
        with torch.no_grad():
            twin(*args, **kwargs)
    except Exception:  # whatever a module may raise of tensors without numbers
        return []
    after = dict(twin.named_buffers())
    return [name for name, (buffer, version) in before.items() if after.get(name) is not buffer or buffer._version != version]
