"""Whether a file holds the numbers that its description speaks of, settled before anything is allocated for them.

A description is a few bytes that can ask for any network. But a network that is loaded has the file's numbers, so one that needs many
more of them than there are was never saved.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from anarch_core.checkpoint.header import Header
from anarch_core.checkpoint.schema import TIED
from anarch_core.errors import CheckpointError, one_line
from anarch_core.models import ModelSpec
from anarch_core.ops.makers import MAKERS
from anarch_core.plugin.registry import Registry
from anarch_core.relaxation.base import Site
from anarch_core.relaxation.lattice import CONVOLUTIONS
from anarch_core.relaxation.materialise import convolution_of
from anarch_core.relaxation.surgery import candidates, owner
from anarch_core.relaxation.verbs import AppliedRelaxation

_BESIDE = 2**24  # numbers that a network may make and not keep in its state
_TIMES = 4  # so many times the numbers of a file may its model have before it is relaxed, since relaxing makes no network smaller


class Outline(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While it is entered, tensors that are made to be filled are shapes without numbers, and there is an end to them.

    Args:
        numbers: that may be made, all tensors together.
        tensors: that may be made.

    Attributes:
        exceeded: whether there were more.
    """

    def __init__(self, numbers: int, tensors: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.exceeded = False
        self._numbers, self._tensors = numbers, tensors

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if func not in MAKERS or str(kwargs.get("device")) == "meta":
            return func(*args, **kwargs)
        made = func(*args, **{**kwargs, "device": "meta", "pin_memory": None})
        self._numbers -= made.numel()
        self._tensors -= 1
        if self._numbers < 0 or self._tensors < 0:
            self.exceeded = True
            msg = "more numbers than there may be"
            raise MemoryError(msg)
        return made


def stored_shapes(header: Header) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors that a file holds, by each name of a state, tied names included."""
    shapes = {name: entry.shape for name, entry in header.tensors.items()}
    tied = (header.table(TIED) if header.ours else None) or {}
    if isinstance(tied, Mapping):
        shapes |= {name: shapes[kept] for name, kept in tied.items() if isinstance(kept, str) and kept in shapes}
    return shapes


def stored_numbers(header: Header) -> dict[str, int]:
    """Numbers that a file holds for each name of a state, tied names included."""
    return {name: math.prod(shape) for name, shape in stored_shapes(header).items()}


def require_model(spec: ModelSpec, header: Header, relaxed: Collection[str], path: Path, registry: Registry) -> None:
    """Refuse to build a model that a file cannot be of.

    A model that cannot be made without numbers, because of what it does with them, passes.

    Args:
        spec: of the base model.
        header: of the file.
        relaxed: layers whose tensors in the file are those of a relaxed layer.
        path: of the file, for messages.
        registry: where names are looked up.

    Raises:
        CheckpointError: it has many more numbers than the file.
    """
    sizes = stored_numbers(header)
    held = sum(sizes.values())
    outline = Outline(_TIMES * held + _BESIDE, _TIMES * len(sizes) + 10_000)
    model = None
    with contextlib.suppress(Exception), outline:  # whatever is wrong, building it says better
        model = spec.make(registry=registry)
    if outline.exceeded:
        msg = f"{path} describes a model ({spec!s:.200}) of many more numbers than the {held:,} that it holds; it is not built"
        raise CheckpointError(msg)
    if model is None:
        return
    wholes = sorted(relaxed, key=len)  # a layer may have become a part of one that was relaxed later
    for name, tensor in model.state_dict().items():
        if not isinstance(tensor, torch.Tensor) or nn.parameter.is_lazy(tensor):
            continue
        layer = owner(name, wholes)
        found = sizes.get(name, 0) if layer is None else _held(sizes, layer)
        if tensor.numel() > _TIMES * found + _BESIDE // _TIMES:
            needs = f"{name!r:.80} of {tensor.numel():,} numbers"
            msg = f"{path} describes a model ({spec!s:.200}) with {needs}, and holds {found:,}; it is not built"
            raise CheckpointError(msg)


def require_layers(
    network: nn.Module,
    record: AppliedRelaxation,
    sizes: Mapping[str, int] | None,
    path: Path,
    registry: Registry,
    *,
    later: Sequence[AppliedRelaxation] = (),
) -> None:
    """Refuse relaxed layers that cannot be, or are larger than what a file holds for them.

    Args:
        network: that is to be relaxed.
        record: how.
        sizes: what the file holds, see :func:`stored_numbers`; None where it holds the layers that they are lifted from.
        path: of the file, for messages.
        registry: where names are looked up.
        later: relaxations that follow, whose layers may be made of these.

    Raises:
        CheckpointError: a layer does not take the recorded input, or has more numbers than the file.
    """
    relaxation = registry.create("relaxation", record.name, record.options)
    convolutions, targets = candidates(network, CONVOLUTIONS), candidates(network, relaxation.targets)
    wholes = sorted({each for following in later for each in following.layers}, key=len)
    for layer, shape in record.layers.items():
        module: nn.Module | str | None = network.get_submodule(layer) if layer in targets or layer in record.materialised else None
        if layer in record.materialised:
            module = convolution_of(network.get_submodule(layer), shape) if layer in convolutions else None
        if not isinstance(module, nn.Module):
            continue  # relaxing it says why not
        site = Site(path=layer, module=module, input_shape=tuple(shape), output_shape=(), calls=record.calls.get(layer, 1))
        try:
            if relaxation.refusal(site) is not None:
                continue  # likewise
            needed = relaxation.cost(site).parameters
        except Exception as error:
            msg = f"{path} says that {layer!r:.80} takes inputs of shape {shape}, with which {record.name} fails: {one_line(error)}"
            raise CheckpointError(msg) from error
        whole = owner(layer, wholes)
        found = needed if sizes is None else _held(sizes, layer if whole is None else whole)
        if needed > found:
            msg = f"{path} says that {layer!r:.80} is a layer of {needed:,} parameters ({record.name}), and holds {found:,} numbers of it"
            raise CheckpointError(msg)


def _held(sizes: Mapping[str, int], layer: str) -> int:
    """Numbers that a file holds for a layer."""
    return sum(size for name, size in sizes.items() if owner(name, [layer]) is not None)
