"""A probe in several processes that hold the network together, and what it finds there."""

from __future__ import annotations

import importlib
import io
import json
import math
import pickle
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import attrs
import torch
from torch import nn

from anarch_core.files.tables import canonical_json
from anarch_core.probe.base import AbstractProbe, Measurement, ProbeContext
from anarch_core.relaxation.verbs import relax
from anarch_core.sharding.shards import Shards
from anarch_core.sharding.shared_out import cuts_of
from anarch_core.testing.snapshot import same_bits
from anarch_core.testing.together import loaded, together

RTOL, ATOL = 1e-6, 1e-9
"""What measurements in float64 may differ by, of themselves and besides: sums are taken in another order."""

RELAXED = ("model", "reference", "twin", "sibling")
"""The networks of a context that are held together."""


@attrs.frozen(eq=False)
class Found:
    """A measurement as it comes from another process.

    Attributes:
        scalars: by name.
        details: as JSON.
        tensors: by name.
    """

    scalars: Mapping[str, float | None]
    details: str
    tensors: Mapping[str, torch.Tensor]

    @classmethod
    def of(cls, measurement: Measurement) -> Found:
        """What a probe gave."""
        tensors = {name: tensor.detach().cpu() for name, tensor in measurement.tensors.items()}
        return cls(dict(measurement.scalars), canonical_json(dict(measurement.details)), tensors)

    def equals(self, other: Found) -> bool:
        """Whether another is the same to the last bit."""
        alike = (self.scalars, self.details, self.tensors.keys()) == (other.scalars, other.details, other.tensors.keys())
        return alike and all(
            tensor.shape == other.tensors[name].shape and same_bits(tensor, other.tensors[name]) for name, tensor in self.tensors.items()
        )


def measured_together(processes: int, probe: AbstractProbe, context: ProbeContext, relaxation: str) -> list[Found]:
    """What a probe finds in each of several processes, which hold the relaxed networks of a context together.

    Args:
        processes: how many.
        probe: its class is found by the name of its module, or in the file of it.
        context: with the network that the others were relaxed from; all in this process.
        relaxation: of these networks; of the lattice.

    Raises:
        RuntimeError: the probe, or the relaxation, raises in one of them.
    """
    states = {role: network.state_dict() for role in RELAXED if (network := getattr(context, role)) is not None}
    others = {"parent": context.parent, "control": context.control}
    given = {"data": context.data, "seed": context.seed, "moment": context.moment, **others}
    content = pickle.dumps((probe, relaxation, states, given))
    sources = dict(_sources(probe, *(network for network in others.values() if network is not None)))
    return [pickle.loads(found) for found in together(processes, _measured, sources, content)]


def _measured(shards: Shards, sources: Mapping[str, str], content: bytes) -> bytes:
    for module, file in sources.items():
        with suppress(ImportError):
            importlib.import_module(module)
        loaded(file, module)
    probe, relaxation, states, given = _Reader(io.BytesIO(content)).load()
    example = given["data"].x_train[:1]
    networks: dict[str, Any] = {role: _part(given["parent"], relaxation, example, shards, state) for role, state in states.items()}
    return pickle.dumps(Found.of(probe.measure(ProbeContext(**networks, **given))))


@torch.no_grad()
def _part(parent: nn.Module, relaxation: str, example: torch.Tensor, shards: Shards, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """A network that was relaxed from another, as far as this process holds it."""
    model = relax(parent, relaxation, example_input=example, shards=shards, check=False).model
    cuts = cuts_of(model)
    for name, tensor in model.state_dict().items():
        tensor.copy_(cuts[name].of_whole(state[name]).view(tensor.shape) if name in cuts else state[name])
    return model


class _Reader(pickle.Unpickler):
    """Knows the modules that were loaded from files, which no import finds."""

    def find_class(self, module: str, name: str) -> Any:
        if module not in sys.modules:
            return super().find_class(module, name)
        found: Any = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
        return found


def _sources(probe: AbstractProbe, *networks: nn.Module) -> Iterator[tuple[str, str]]:
    """Modules in which classes are, and their files."""
    made = [probe, probe.options, *(module for network in networks for module in network.modules())]
    for each in made:
        module = sys.modules.get(type(each).__module__)
        file = getattr(module, "__file__", None)
        if file is not None:
            yield type(each).__module__, file


def differences(found: Found, expected: Found) -> list[str]:
    """What differs between a measurement and the one of the whole network, beyond rounding: how it is here, and there.

    Of numbers in the details it is no more than whether they are there, as what bounds an error may be far from it.
    """
    ours, theirs = _by_name(found), _by_name(expected)
    return [
        f"{name} is {_told(ours, name)}, and {_told(theirs, name)} in one process"
        for name in dict.fromkeys([*theirs, *ours])
        if name not in ours or name not in theirs or not _alike(ours[name], theirs[name])
    ]


def _by_name(found: Found) -> dict[str, Any]:
    return {
        **{f"scalar {name!r}": value for name, value in found.scalars.items()},
        **dict(_flat("details", json.loads(found.details))),
        **{f"tensor {name!r}": tensor for name, tensor in found.tensors.items()},
    }


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(f"{name}[{key!r}]", inner)
    else:
        yield name, "a number" if isinstance(value, float) else value


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        near = ATOL + RTOL * float(other.double().abs().amax()) if other.numel() else 0.0
        return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=0, atol=near, equal_nan=True)
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=RTOL, abs_tol=ATOL)
    return type(one) is type(other) and bool(one == other)


def _told(values: Mapping[str, Any], name: str) -> str:
    if name not in values:
        return "absent"
    value = values[name]
    return f"another tensor, {list(value.shape)}," if isinstance(value, torch.Tensor) else str(value)
