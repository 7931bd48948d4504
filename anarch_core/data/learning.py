"""A data set and an objective brought together."""

from __future__ import annotations

import contextlib

import attrs

from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import AnarchError, DataError
from anarch_core.objective.base import AbstractObjective
from anarch_core.objective.classification import CrossEntropy
from anarch_core.plugin.registry import Registry


def with_objective(data: TensorData, objective: AbstractObjective | None, registry: Registry) -> TensorData:
    """The data set, to be learnt by an objective; by its own if None.

    Raises:
        DataError: it has one of its own, another one.
    """
    own = data.objective
    if objective is None or _alike(own, objective):
        return data
    if not _alike(own, CrossEntropy()):
        names = [name for name, known in _objectives(registry).items() if type(known) is type(own)]
        named = f", --objective {names[0]} with its options" if names else ""
        msg = (
            f"data {data.name!r} are to be learnt by {_described(own)}, and the run is set to {_described(objective)}; choose the same for "
            f"both{named}"
        )
        raise DataError(msg)
    return attrs.evolve(data, objective=objective)


def suggestion(data: TensorData, registry: Registry) -> str:
    """The end of a sentence about targets that the data set's objective does not take: which objectives do."""
    with contextlib.suppress(Exception):  # they may be anything
        if data.objective.problem(data.y_train, data.classes) is not None:
            taking = [name for name, known in _objectives(registry).items() if known.problem(data.y_train, data.classes) is None]
            if taking:
                return f"; such targets are learnt by --objective {' or '.join(taking)}"
    return ""


def _objectives(registry: Registry) -> dict[str, AbstractObjective]:
    found: dict[str, AbstractObjective] = {}
    for info in registry.infos("objective"):
        with contextlib.suppress(AnarchError):
            found[info.name] = registry.create("objective", info.name)
    return found


def _alike(one: AbstractObjective, other: AbstractObjective) -> bool:
    def settings(objective: AbstractObjective) -> object:
        options = objective.options
        return attrs.asdict(options, filter=lambda field, value: value != field.default) if attrs.has(type(options)) else options or {}

    return type(one) is type(other) and settings(one) == settings(other)


def _described(objective: AbstractObjective) -> str:
    options = objective.options
    return type(objective).__name__ + ("" if options is None else f" ({options})")
