"""Bring two networks to one architecture, so that there is a space between them."""

from __future__ import annotations

from torch import nn

from anarch_core.errors import ProbeError, SurgeryError
from anarch_core.lattice.families import EFCN
from anarch_core.layers.base import RelaxedLayer, relaxed_layers
from anarch_core.layers.fully_connected import FullyConnectedLayer
from anarch_core.layers.lattice_layer import LatticeLayer
from anarch_core.layers.reparametrised import ReparametrisedLayer
from anarch_core.machine import require_memory
from anarch_core.relaxation.copying import copy_with
from anarch_core.relaxation.lattice import lift_layer
from anarch_core.relaxation.surgery import candidates
from anarch_core.relaxation.verbs import applied_relaxations, reapply


def common_architecture(a: nn.Module, b: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Lift whichever network is the more constrained one, or both to fully connected layers where neither holds the other.

    Args:
        a: one network; never changed.
        b: the other; never changed.

    Returns:
        both, with the same parameters by name and shape; a network that need not be lifted as it is, no copy.

    Raises:
        ProbeError: they are different networks, whatever is lifted.
    """
    if _layout(a) == _layout(b):
        return a, b
    for first, second in ((a, b), (b, a)):
        try:
            lifted = reapply(first, applied_relaxations(second))
        except SurgeryError:
            continue
        if _layout(lifted) == _layout(second):
            return (lifted, second) if first is a else (second, lifted)
    both = tuple(_fully_connected(network) for network in (a, b))
    if _layout(both[0]) == _layout(both[1]):
        return both[0], both[1]
    differing = sorted(_layout(a).keys() ^ _layout(b).keys()) or sorted(
        name for name, shape in _layout(both[0]).items() if _layout(both[1])[name] != shape
    )
    msg = f"the networks are not of one architecture and cannot be lifted to a common one; they differ in {', '.join(differing[:5])}"
    raise ProbeError(msg)


def _layout(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _fully_connected(model: nn.Module) -> nn.Module:
    """A copy whose relaxed layers are fully connected ones.

    Raises:
        ProbeError: a relaxed layer is no linear map of the lattice.
        OutOfMemoryError: they would not fit.
    """
    layers = {path: _lattice_layer(path, layer) for path, layer in relaxed_layers(model).items()}
    cost = sum(FullyConnectedLayer.cost(EFCN, layer.geometry, layer.weight.element_size()).bytes for layer in layers.values())
    if layers:
        require_memory(cost, next(iter(layers.values())).weight.device, f"the fully connected network between {len(layers)} layer(s)")
    paths = candidates(model, (RelaxedLayer,))
    dense = {path: lift_layer(layer, layer.geometry, EFCN, FullyConnectedLayer) for path, layer in layers.items()}
    return copy_with(model, {path: (paths[path], layer) for path, layer in dense.items()})


def _lattice_layer(path: str, layer: RelaxedLayer) -> LatticeLayer:
    """The layer of the lattice that is the same linear map."""
    if isinstance(layer, LatticeLayer):
        return layer
    if isinstance(layer, ReparametrisedLayer) and layer.linear:
        return layer.lattice()
    msg = f"{path or 'the network'} is a layer of {layer.relaxation}, which is no linear map of the lattice; project the networks first"
    raise ProbeError(msg)
