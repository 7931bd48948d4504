"""Letting relaxed layers know when a pass of their network begins, so that they can count their calls in it."""

from __future__ import annotations

from typing import Any

from torch import nn

from anarch_core.layers.base import RelaxedLayer


def begin_pass(model: nn.Module, args: Any) -> None:
    """Tell the relaxed layers of a network that a pass begins. A function of a module, so that networks with it are copied and pickled."""
    for layer in _counting(model):
        layer.begin_pass()


def keep_passes_told(model: nn.Module) -> nn.Module:
    """Have :func:`begin_pass` called before each pass of a network, once, where a layer asks for it, and not where none does.

    Changes ``model`` and returns it.
    """
    handles = [key for key, hook in model._forward_pre_hooks.items() if hook is begin_pass]
    if _counting(model) and not handles:
        model.register_forward_pre_hook(begin_pass)
    for key in handles if not _counting(model) else handles[1:]:
        del model._forward_pre_hooks[key]
    return model


def _counting(model: nn.Module) -> list[RelaxedLayer]:
    """The layers that do something when a pass begins, those inside of others, too."""
    return [layer for layer in model.modules() if isinstance(layer, RelaxedLayer) and type(layer).begin_pass is not RelaxedLayer.begin_pass]
