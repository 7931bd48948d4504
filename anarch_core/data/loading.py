"""A data set by its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anarch_core.data.gathering import gathered
from anarch_core.data.learning import suggestion, with_objective
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import DataError
from anarch_core.objective.base import AbstractObjective
from anarch_core.plugin.blame import expected, on_behalf_of
from anarch_core.plugin.factories import call_factory, is_factory
from anarch_core.plugin.registry import Registry, get_registry


def load_data(
    name: str,
    *,
    root: Path | None = None,
    options: Mapping[str, Any] | None = None,
    limit: int | None = None,
    validation: float | None = None,
    seed: int = 0,
    objective: AbstractObjective | None = None,
    whole: bool = True,
    registry: Registry | None = None,
) -> TensorData:
    """Load a data set, checked, on the CPU.

    The validation part is split off first, from the whole training set, and the limit applied to what is left: it says how many samples are
    trained on, and does not change what is held out.

    Args:
        name: ``"name"`` or ``"name:value"``, as in ``"tensors:digits.safetensors"``, of a registered data set; or
            ``"package.module:factory"``, a function that gives what :func:`~anarch_core.data.gathering.gathered` takes.
        root: folder with data already there, or to download to; given to a factory that declares it.
        options: options of the data set by name; keyword arguments of a factory.
        limit: at most so many training samples, see :meth:`TensorData.limited`.
        validation: number or share of training samples to hold out, see :meth:`TensorData.with_validation`.
        seed: for the choice of the validation part.
        objective: what is to be learnt; what the data set says if None, classification where it says nothing.
        whole: whether all inputs are read into memory; if not, data sets that can be read a batch at a time are left as they are stored.
        registry: where names are looked up, the installed plugins by default.

    Raises:
        UnknownComponentError: no plugin provides the data set.
        OptionError: an option is unknown or has a value that is not allowed.
        DataError: the data are missing, unreadable or unfit to train on.
        ConfigError: a factory cannot be imported or called.
    """
    registry = registry or get_registry()
    data, origin = _read(name, root, options or {}, registry)
    data = with_objective(data, objective, registry)
    with on_behalf_of(origin, "its data cannot be checked"):
        try:
            data.check()
        except DataError as error:
            msg = f"{error}{suggestion(data, registry)}"
            raise DataError(msg) from error
    if validation is not None:
        data = data.with_validation(validation, seed)
    if limit is not None:
        data = data.limited(limit)
    return data.whole() if whole else data


def _read(name: str, root: Path | None, options: Mapping[str, Any], registry: Registry) -> tuple[TensorData, str]:
    """The data set, and where it comes from, for messages."""
    if is_factory("dataset", name, registry):
        return gathered(name, call_factory("dataset", name, {"root": root}, options)), f"data {name!r}"
    info, given = registry.chosen("dataset", name, options)
    origin = registry.origin(info)
    return expected(origin, "it", registry.call(info, root, registry.parse_options(info, given)), TensorData), origin
