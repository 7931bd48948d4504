"""Where a module has masks, and what it is without them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.utils import parametrize, prune


@attrs.frozen(kw_only=True, eq=False)
class Mask:
    """A mask on one parameter of a module.

    Attributes:
        name: of the weight that the module computes with.
        parameter: name of the parameter that is multiplied by the mask.
        values: the mask, shaped as the weight.
        buffer: its name, where the module itself multiplies by it whenever it is called.
    """

    name: str
    parameter: str
    values: torch.Tensor
    buffer: str | None = None

    @property
    def binary(self) -> bool:
        """Whether it holds zeros and ones only."""
        return bool(((self.values == 0) | (self.values == 1)).all())


def masks(module: nn.Module) -> list[Mask]:
    """The masks of a module itself, not of those inside: by pruning hooks, by parametrizations, and by buffers that are called masks."""
    return [*_pruned(module), *_parametrized(module), *_held(module)]


def pruning(module: nn.Module) -> dict[int, prune.BasePruningMethod]:
    """The hooks by which ``torch.nn.utils.prune`` computes weights, by their key."""
    return {key: hook for key, hook in module._forward_pre_hooks.items() if isinstance(hook, prune.BasePruningMethod)}


def _pruned(module: nn.Module) -> Iterator[Mask]:
    for hook in pruning(module).values():
        name = hook._tensor_name
        yield Mask(name=name, parameter=f"{name}_orig", values=module.get_buffer(f"{name}_mask"))


def parametrizations(module: nn.Module) -> dict[str, Any]:
    """Lists of parametrizations by the name of what they compute."""
    return dict(module.parametrizations.items()) if parametrize.is_parametrized(module) else {}  # type: ignore[operator,union-attr]


def _parametrized(module: nn.Module) -> Iterator[Mask]:
    for name, parts in parametrizations(module).items():
        found = _multiplier(parts)
        if found is not None:
            yield Mask(name=name, parameter=f"parametrizations.{name}.original", values=found)


def _multiplier(parts: Any) -> torch.Tensor | None:
    """The buffer that a parametrization multiplies its tensor by; None where it does something else."""
    original = getattr(parts, "original", None)
    if len(parts) != 1 or not isinstance(original, nn.Parameter) or list(parts[0].parameters()):
        return None
    buffers = [buffer for buffer in parts[0].buffers() if buffer.shape == original.shape]
    if len(buffers) != 1:
        return None
    mask: torch.Tensor = buffers[0]
    generator = torch.Generator("cpu").manual_seed(0)
    tried = torch.randn(mask.shape, generator=generator, dtype=torch.float64, device="cpu").to(mask.device)
    with torch.no_grad():
        for values in (tried, -3 * tried):
            if not torch.equal(parts[0](values), values * mask):
                return None
    return mask


def _held(module: nn.Module) -> Iterator[Mask]:
    computed = {*parametrizations(module), *(hook._tensor_name for hook in pruning(module).values())}
    for name, parameter in module._parameters.items():
        if parameter is None or name in computed or name.endswith("_orig"):
            continue
        for called in (f"{name}_mask", "mask") if name == "weight" else (f"{name}_mask",):
            values = module._buffers.get(called)
            found = None if values is None else Mask(name=name, parameter=name, values=values, buffer=called)
            if found is not None and found.values.shape == parameter.shape and found.binary:
                yield found
                break


def without_masks(module: nn.Module) -> nn.Module:
    """The module with weights that are parameters, whose numbers are not those that it computed with.

    Changes ``module``, all parametrizations of which are masks, and returns it.
    """
    found = {mask: module.get_parameter(mask.parameter) for mask in masks(module)}
    for key in pruning(module):
        del module._forward_pre_hooks[key]
    if parametrize.is_parametrized(module):  # by hand: what PyTorch has for it changes the class, which copies share
        module.__class__ = type(module).__bases__[0]
        del module._modules["parametrizations"]
    for mask, parameter in found.items():
        if mask.buffer is not None:
            mask.values.fill_(1)
            continue
        if mask.parameter == f"{mask.name}_orig":
            del module._parameters[mask.parameter], module._buffers[f"{mask.name}_mask"]
            module.__dict__.pop(mask.name, None)
        setattr(module, mask.name, parameter)
    return module
