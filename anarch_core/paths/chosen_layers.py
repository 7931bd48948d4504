"""Layers that move on a path while the others stay as one of the networks has them (Adilova et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from torch import nn

from anarch_core.errors import ProbeError, SurgeryError
from anarch_core.layers.base import whole_modules
from anarch_core.paths.ends import Ends
from anarch_core.relaxation.surgery import select

Rest = Literal["first", "second"]
"""Which network the layers are of that do not move."""
SIDES: tuple[Rest, ...] = get_args(Rest)

PARAMETRIZATIONS = ".parametrizations."


def chosen_layers(ends: Ends, patterns: str | Sequence[str]) -> Mapping[str, frozenset[str]]:
    """The layers that match the patterns, in the order of the network.

    A layer is a module that holds weights, or buffers that are mixed, by itself and not in a module inside. Relaxed and parametrized layers
    are wholes, and layers whose weights are tied are one layer, with all of their paths.

    Args:
        ends: the networks.
        patterns: as ``layers`` of :func:`anarch_core.relax`.

    Returns:
        names of the tensors of each layer, by its path.

    Raises:
        ProbeError: a pattern matches nothing, or no layer is left.
    """
    layers = _layers(ends.first, ends.buffers)
    try:
        paths = select({path: names for path, (names, _) in layers.items()}, patterns)
    except SurgeryError as error:
        raise ProbeError(str(error)) from error
    if not paths:
        msg = f"the layer patterns leave none to move of {', '.join(path or 'the network' for path in layers)}; take fewer of them away"
        raise ProbeError(msg)
    return {path: frozenset(layers[path][1]) for path in paths}


def _layers(network: nn.Module, mixed: Iterable[str]) -> dict[str, tuple[list[str], set[str]]]:
    """Canonical path -> all paths of a layer, and the canonical names of its tensors."""
    modules = dict(whole_modules(network, remove_duplicate=False))
    canonical = {id(parameter): name for name, parameter in network.named_parameters()}
    tensors = [(name, canonical[id(parameter)]) for name, parameter in network.named_parameters(remove_duplicate=False)]
    layers: dict[str, tuple[list[str], set[str]]] = {}
    for name, own in (*tensors, *((buffer, buffer) for buffer in mixed)):
        path = _holder(name, modules)
        same = [known for known, (paths, names) in layers.items() if path in paths or own in names]
        first, *others = same or [path]
        paths, names = layers.setdefault(first, ([], set()))
        for other in others:
            paths.extend(layers[other][0])
            names |= layers.pop(other)[1]
        if path not in paths:
            paths.append(path)
        names.add(own)
    return layers


def _holder(name: str, modules: Mapping[str, nn.Module]) -> str:
    """Path of the layer that holds a tensor."""
    path = name.partition(PARAMETRIZATIONS)[0] if PARAMETRIZATIONS in name else name.rpartition(".")[0]
    while path not in modules:
        path = path.rpartition(".")[0]
    return path
