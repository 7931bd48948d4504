"""What two networks of one architecture must agree on for there to be something between them, and what is mixed besides weights."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping

import attrs
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.layers.lattice_layer import LatticeLayer
from anarch_core.network import copied
from anarch_core.paths.common import common_architecture
from anarch_core.paths.landscape import normalisations

OUTPUTS = "or mix what the networks say, by the methods logits and probabilities"


@attrs.frozen(kw_only=True)
class Ends:
    """Two networks with the same tensors, by name, shape, dtype and device, on which nothing but floating-point numbers differs.

    Attributes:
        first: the network at position 0; as it was given, where it need not be lifted or converted.
        second: the network at position 1; likewise.
        buffers: floating-point buffers that differ, of both; statistics of batch norm, which are estimated afresh, are not among them.
        trained: names of the parameters that require a gradient in either network.
    """

    first: nn.Module
    second: nn.Module
    buffers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    trained: frozenset[str]

    def between(self, fraction: float) -> dict[str, torch.Tensor]:
        """The buffers at a position from 0 to 1; to the bit those of a network at its end, and wherever the networks agree."""
        ends = {0.0: 0, 1.0: 1}
        if fraction in ends:
            return {name: pair[ends[fraction]] for name, pair in self.buffers.items()}
        return {name: torch.where(a == b, a, torch.lerp(a, b, fraction)) for name, (a, b) in self.buffers.items()}


def ends(a: nn.Module, b: nn.Module) -> Ends:
    """Two networks, lifted to a common architecture and brought to the wider of their dtypes.

    Args:
        a: one network; never changed.
        b: the other; never changed.

    Raises:
        ProbeError: they have no common architecture, no weights, are on several devices, or differ in what cannot be mixed.
    """
    devices = sorted({str(tensor.device) for network in (a, b) for tensor in (*network.parameters(), *network.buffers())})
    if len(devices) > 1:
        msg = f"the networks are on several devices, {', '.join(devices)}; move both to one with .to(device)"
        raise ProbeError(msg)
    first, second = common_architecture(a, b)
    tensors = [dict(network.named_parameters()) for network in (first, second)]
    weights = [{name: parameter.dtype for name, parameter in each.items() if parameter.is_floating_point()} for each in tensors]
    if not weights[0]:
        msg = f"the networks have no weights, so there is no way between them; take networks with parameters, {OUTPUTS}"
        raise ProbeError(msg)
    if weights[0] != weights[1]:
        wider = functools.reduce(torch.promote_types, (dtype for each in weights for dtype in each.values()))
        first, second = (copied(network).to(wider) for network in (first, second))
        tensors = [dict(network.named_parameters()) for network in (first, second)]
    _require_equal((name, parameter, tensors[1][name]) for name, parameter in tensors[0].items() if not parameter.is_floating_point())
    return Ends(
        first=first,
        second=second,
        buffers=_differing_buffers(first, second),
        trained=frozenset(name for each in tensors for name, parameter in each.items() if parameter.requires_grad),
    )


def require_place(data: TensorData, *networks: nn.Module) -> None:
    """Refuse networks that are not where the data are.

    Args:
        data: what they are evaluated on.
        networks: to be evaluated.

    Raises:
        ProbeError: one is on another device.
    """
    where = str(data.inputs("train").device)
    away = sorted({str(tensor.device) for network in networks for tensor in (*network.parameters(), *network.buffers())} - {where})
    if away:
        msg = f"the networks are on {', '.join(away)} and the data on {where}; move all to one device with .to(device)"
        raise ProbeError(msg)


def _differing_buffers(first: nn.Module, second: nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    a, b = dict(_buffers(first)), dict(_buffers(second))
    alone = sorted(a.keys() ^ b.keys())
    if alone:
        msg = f"only one of the networks has the buffers {', '.join(alone[:5])}; give both the same, {OUTPUTS}"
        raise ProbeError(msg)
    shapes = [name for name in a if a[name].shape != b[name].shape]
    if shapes:
        msg = f"the networks' buffers {', '.join(shapes[:5])} are of different shapes; give both the same, {OUTPUTS}"
        raise ProbeError(msg)
    floating = {name for name in a if a[name].is_floating_point() and b[name].is_floating_point()}
    _require_equal((name, a[name], b[name]) for name in a if name not in floating)
    return {name: (a[name], b[name].to(a[name].dtype)) for name in a if name in floating and not _equal(a[name], b[name])}


def _buffers(network: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Buffers that outputs depend on, but for those that are estimated at every point."""
    estimated = set(normalisations(network))
    for path, module in network.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            idle = name == (
                "unseen" if isinstance(module, LatticeLayer) else "num_batches_tracked" if isinstance(module, _NormBase) else ""
            )
            if not idle and module not in estimated:
                yield f"{path}.{name}".lstrip("."), buffer


def _require_equal(pairs: Iterable[tuple[str, torch.Tensor, torch.Tensor]]) -> None:
    names = [name for name, a, b in pairs if not _equal(a, b)]
    if names:
        which = ", ".join(names[:5])
        msg = f"{which} are no real numbers and differ between the networks, so nothing lies between; make them equal, {OUTPUTS}"
        raise ProbeError(msg)


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors hold the same, nan where nan is."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
