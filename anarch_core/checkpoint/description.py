"""What a checkpoint says it holds, read from its metadata without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from anarch_core.checkpoint.header import Header
from anarch_core.checkpoint.schema import BASE, DELTA, KIND, LIFTED, MODEL, RELAXATIONS, RELAXED, STEP
from anarch_core.errors import CheckpointError
from anarch_core.files.tables import canonical_json
from anarch_core.schedule import Moment

_LARGEST_INPUT = 2**24  # numbers in one input of a network: sixteen million, as in a volume of 256 × 256 × 256
_LARGEST_LAYER_INPUT = 2**28
_LARGEST_SIZE = 2**22  # of one axis: index maps have tables as long
_MOST_RELAXATIONS = 256
_MOST_STEPS = 2**53
_MOST_CALLS = 2**16  # of a layer in one pass of its network


@attrs.frozen(kw_only=True)
class Description:
    """The content of a model checkpoint.

    Attributes:
        kind: ``"base-model"``; ``"relaxed-model"``; or ``"delta"``, a freshly relaxed network stored as the network it came from.
        model: the record of the base model's :class:`anarch_core.models.ModelSpec`, None for a model of the user's own.
        relaxations: what was applied to the base model, in order; records of :class:`anarch_core.relaxation.verbs.AppliedRelaxation`.
        lifted: how many of the last relaxations are not in the tensors of a delta and are repeated when it is loaded.
        step: the moment of training it was taken at, or None.
    """

    kind: str
    model: Mapping[str, Any] | None = None
    relaxations: tuple[Mapping[str, Any], ...] = ()
    lifted: int = 0
    step: Moment | None = None

    @property
    def relaxed(self) -> frozenset[str]:
        """Paths of the layers whose tensors in the file are those of a relaxed layer."""
        records = self.relaxations[: len(self.relaxations) - self.lifted]
        return frozenset(layer for record in records for layer in record["layers"])

    def to_metadata(self) -> dict[str, str]:
        """Metadata that :func:`read_description` reads; equal descriptions give equal strings."""
        metadata = {KIND: self.kind}
        if self.model is not None:
            metadata[MODEL] = canonical_json(dict(self.model))
        if self.relaxations:
            metadata[RELAXATIONS] = canonical_json([dict(record) for record in self.relaxations])
        if self.lifted:
            metadata[LIFTED] = canonical_json(self.lifted)
        if self.step is not None:
            metadata[STEP] = canonical_json(attrs.asdict(self.step))
        return metadata


def other_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata that is not part of the description: kept when a file is rewritten."""
    return {key: text for key, text in metadata.items() if key not in {KIND, MODEL, RELAXATIONS, LIFTED, STEP}}


def read_description(header: Header, path: str | Path) -> Description:
    """Read the description of a model checkpoint.

    Args:
        header: of a file of anarch's schema.
        path: its name, for messages.

    Raises:
        CheckpointError: the file is no model checkpoint, or its description makes no sense.
    """
    kind = header.metadata.get(KIND)
    if kind not in (BASE, RELAXED, DELTA):
        what = "state without a model" if kind is None else f"a {kind!r}"
        msg = f"{path} holds {what}, expected one of {BASE}, {RELAXED}, {DELTA}"
        raise CheckpointError(msg)
    try:
        model, relaxations, step, lifted = (header.table(key) for key in (MODEL, RELAXATIONS, STEP, LIFTED))
    except CheckpointError as error:
        msg = f"{path}: {error}"
        raise CheckpointError(msg) from error
    try:
        _require_model(model)
        _require_relaxations(relaxations)
        description = Description(
            kind=kind,
            model=None if model is None else dict(model),
            relaxations=tuple(dict(record) for record in relaxations or ()),
            lifted=int(lifted or 0),
            step=None if step is None else Moment(_whole(step["iteration"], 0), _whole(step["iterations_per_epoch"], 1)),
        )
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        msg = f"{path} has metadata that does not follow the checkpoint schema: {error!r:.200}"
        raise CheckpointError(msg) from error
    if not 0 <= description.lifted <= len(description.relaxations):
        msg = f"{path} has metadata that does not follow the checkpoint schema: {LIFTED} is {description.lifted}"
        raise CheckpointError(msg)
    return description


def _require_model(record: Any) -> None:
    """Refuse a record of a model that nobody wrote: building it might take any time and memory.

    Raises:
        KeyError: something is missing.
        TypeError: it has the wrong type.
        ValueError: it is out of range.
    """
    if record is None:
        return
    _text(record["name"])
    _table(record["options"])
    _whole(record["classes"], 1)
    _shape(record["input_shape"], _LARGEST_INPUT)


def _require_relaxations(records: Any) -> None:
    """Likewise for a list of records of relaxations."""
    if not isinstance(records, list | None):
        msg = f"relaxations are a {type(records).__name__}, expected a list"
        raise TypeError(msg)
    if records is not None and len(records) > _MOST_RELAXATIONS:
        msg = f"{len(records)} relaxations, expected at most {_MOST_RELAXATIONS}"
        raise ValueError(msg)
    for record in records or ():
        for key in ("name", "distribution", "version", "api"):
            _text(record[key])
        _text(record.get("digest", ""))
        _table(record["options"])
        for layers in (record["layers"], record.get("materialised", {})):
            for shape in _table(layers).values():
                _shape(shape, _LARGEST_LAYER_INPUT)
        for layer, calls in _table(record.get("calls", {})).items():
            if layer not in record["layers"] or _whole(calls, 2) > _MOST_CALLS:
                msg = f"{calls!r:.80} calls of {layer!r:.80}, expected 2 to {_MOST_CALLS:,} of a layer that was relaxed"
                raise ValueError(msg)


def _text(value: Any) -> None:
    if not isinstance(value, str):
        msg = f"{value!r:.80} is a {type(value).__name__}, expected a text"
        raise TypeError(msg)


def _table(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        msg = f"{value!r:.80} is a {type(value).__name__}, expected a table"
        raise TypeError(msg)
    return value


def _whole(value: Any, least: int) -> int:
    if type(value) is not int or not least <= value <= _MOST_STEPS:
        msg = f"{value!r:.80}, expected a whole number from {least}"
        raise ValueError(msg)
    return value


def _shape(value: Any, most: int) -> None:
    """A list of sizes, of a product of at most ``most``."""
    if not isinstance(value, list) or not all(type(size) is int and 0 < size <= _LARGEST_SIZE for size in value):
        msg = f"{value!r:.80} is no shape; expected a list of whole numbers from 1 to {_LARGEST_SIZE:,}"
        raise ValueError(msg)
    if len(value) > 8 or math.prod(value) > most:
        msg = f"{value!r:.80} is the shape of an input of more than {most:,} numbers; build such a model yourself and pass it"
        raise ValueError(msg)
