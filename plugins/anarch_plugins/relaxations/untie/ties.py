"""Parameters that stand in several places of a module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

CONTAINERS = (nn.ModuleList, nn.ModuleDict)
"""Modules that are never called: what holds them is looked at in their place."""


def places(module: nn.Module) -> dict[str, list[str]]:
    """All names of every parameter: by the one that ``named_parameters`` gives it, once for each module and attribute that hold it."""
    first: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for path, owner in module.named_modules():
        for attribute, parameter in owner._parameters.items():
            if parameter is not None:
                name = f"{path}.{attribute}" if path else attribute
                names.setdefault(first.setdefault(id(parameter), name), []).append(name)
    return names


def tied_here(module: nn.Module) -> dict[str, list[str]]:
    """Those of several places that lie in no one module inside: ``module`` is the smallest that holds them all."""
    if isinstance(module, CONTAINERS):
        return {}
    parts = _parts(module)
    return {
        name: found
        for name, found in places(module).items()
        if len(found) > 1 and not any(all(each.startswith(f"{path}.") for each in found) for path in parts)
    }


def _parts(module: nn.Module, prefix: str = "") -> list[str]:
    """Paths of the modules directly inside; of what they hold in turn, where they are containers."""
    found = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        found += _parts(child, f"{path}.") if isinstance(child, CONTAINERS) else [path]
    return found


def cut(module: nn.Module, names: Mapping[str, Sequence[str]]) -> nn.Module:
    """Put a parameter of its own into every place but the first; changes ``module`` and returns it."""
    for first, *others in names.values():
        parameter = module.get_parameter(first)
        for other in others:
            path, _, attribute = other.rpartition(".")
            copy = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            setattr(module.get_submodule(path), attribute, copy)
    return module
