"""Masked weights -> dense ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from anarch_core.constraint import NOTHING, Constraint, Incidence
from anarch_core.layers import ConstrainedLayer, Link
from anarch_core.network import copied
from anarch_core.relaxation import AbstractConstraintRelaxation, Loosened, Site, constrained_module
from anarch_plugins.relaxations.unmask.masks import Mask, masks, parametrizations, pruning, without_masks


class DenseLayer(ConstrainedLayer):
    """A module whose weights were masked, without the masks."""

    def constrained_buffers(self) -> Mapping[str, torch.Tensor]:
        """All but the masks, which are as they were."""
        held = {mask.buffer for mask in masks(self.free)}
        return {name: buffer for name, buffer in self.free.named_buffers() if name not in held}

    def project(self) -> nn.Module:
        """The nearest module with the masks; the weight that a pruned module keeps is that of its new parameters."""
        module = super().project()
        for hook in pruning(module).values():
            hook(module, ())
        return module


class Unmasking(AbstractConstraintRelaxation):
    """Weights that are zero where a mask says so -> dense."""

    name: ClassVar[str] = "unmask"
    targets: ClassVar[tuple[type[nn.Module], ...]] = (nn.Module,)
    sized: ClassVar[bool] = False

    def understands(self, module: nn.Module) -> bool:
        """Whether all that computes its weights are masks."""
        hooks = [getattr(module, kind) for kind in ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks")]
        others = any(hooks) or len(module._forward_pre_hooks) != len(pruning(module))
        return not others and set(parametrizations(module)) <= {mask.name for mask in masks(module)}

    def idle(self, site: Site) -> str | None:
        found = masks(constrained_module(site.module))
        if not found:
            return "its parametrizations are no single mask each" if parametrizations(constrained_module(site.module)) else "it has no mask"
        if all(bool((mask.values == 1).all()) for mask in found):
            return "its masks are all ones"
        return None

    def refusal(self, site: Site) -> str | None:
        odd = next((mask for mask in masks(constrained_module(site.module)) if not mask.binary), None)
        if odd is not None:
            return f"the mask of its {odd.name} holds other numbers than zeros and ones"
        return super().refusal(site)

    def loosen(self, module: nn.Module, site: Site) -> Loosened:
        links = [
            Link(parent=mask.parameter, free=(mask.name,), constraint=held_at_zero(mask), variance=default_variance(module, mask))
            for mask in masks(module)
        ]
        return Loosened(free=without_masks(copied(module)), links=links, layer_class=DenseLayer)


def held_at_zero(mask: Mask) -> Constraint:
    """W is θ where the mask is one, and zero elsewhere; the other numbers of θ are in no entry."""
    size = mask.values.numel()
    label = np.where(mask.values.flatten().ne(0).cpu().numpy(), np.arange(size), NOTHING)
    return Constraint(mask.values.shape, mask.values.shape, [Incidence.of(label, size)])


def default_variance(module: nn.Module, mask: Mask) -> float | None:
    """Variance of the entries of a weight at PyTorch's default initialisation, for modules of which it is known."""
    known = mask.name == "weight" and isinstance(module, nn.Linear | nn.modules.conv._ConvNd)
    return 1 / (3 * mask.values[0].numel()) if known else None
