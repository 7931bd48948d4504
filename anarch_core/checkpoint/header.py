"""The header of a safetensors file: what it says, how tensors are laid out, and the digests; the standard library alone, no torch.

A file is eight bytes (the header's length, little-endian), the header (JSON: ``__metadata__`` and one entry per tensor), and the tensors'
bytes without gaps. The safetensors package writes metadata in an order that differs from process to process; here everything is sorted, so
equal content gives equal files. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from anarch_core.checkpoint.schema import METADATA_DIGEST, NAMESPACE
from anarch_core.errors import CheckpointError
from anarch_core.files import canonical_json

ITEMSIZE = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
RESTORE = "use an intact copy, or delete the file and make it again"
PREFIX = 8
"""Bytes of the header's length."""


@attrs.frozen
class TensorEntry:
    """Where one tensor lies.

    Attributes:
        dtype: name in safetensors, e.g. ``"F32"``.
        shape: sizes, empty for a scalar.
        start: first byte, counted from the end of the header.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int

    @property
    def bytes(self) -> int:
        """Size of the data."""
        return math.prod(self.shape) * ITEMSIZE[self.dtype]


@attrs.frozen(kw_only=True)
class Header:
    """What a file says of itself before its data is read.

    Attributes:
        metadata: strings by key.
        tensors: entries by name, in the order of the data.
        data_start: where the data begins in the file.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, TensorEntry]
    data_start: int

    @property
    def data_bytes(self) -> int:
        """Size of all tensors."""
        return sum(entry.bytes for entry in self.tensors.values())

    @property
    def ours(self) -> bool:
        """Whether anarch wrote the file, which then carries digests."""
        return any(key.startswith(NAMESPACE) for key in self.metadata)

    def table(self, key: str) -> Any:
        """The JSON value under a metadata key, None where the key is absent.

        Raises:
            CheckpointError: the text is not JSON.
        """
        if key not in self.metadata:
            return None
        try:
            return json.loads(self.metadata[key])
        except (ValueError, RecursionError) as error:
            msg = f"metadata {key!r} is not JSON: {self.metadata[key]!r:.80}; {RESTORE}"
            raise CheckpointError(msg) from error


def layout(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, TensorEntry]:
    """Place tensors, given as (dtype, shape) by name: wide elements first, so that each is aligned; then by name."""
    entries: dict[str, TensorEntry] = {}
    start = 0
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: (-ITEMSIZE[item[1][0]], item[0])):
        entries[name] = TensorEntry(dtype, shape, start)
        start += entries[name].bytes
    return entries


def encode(entries: Mapping[str, TensorEntry], metadata: Mapping[str, str]) -> bytes:
    """The bytes before the data."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    for name, entry in entries.items():
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.start, entry.start + entry.bytes]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % PREFIX)  # data stays aligned to eight bytes
    return len(text).to_bytes(PREFIX, "little") + text


def decode(text: bytes) -> Header:
    """Read what :func:`encode` wrote, without the length.

    Raises:
        ValueError: it makes no sense; the message says why.
    """
    try:
        metadata, tensors = _parse(json.loads(text.decode(), object_pairs_hook=_unique))
    except (RecursionError, TypeError, KeyError, AttributeError) as error:
        msg = f"{type(error).__name__}: {error}"
        raise ValueError(msg) from error
    return Header(metadata=metadata, tensors=tensors, data_start=PREFIX + len(text))


def tensors_digest(entries: Mapping[str, TensorEntry], digests: Mapping[str, str]) -> str:
    """The digest of a set of tensors: SHA-256 over the canonical JSON of ``[[name, dtype, shape, SHA-256 of the bytes], ...]``, by name.

    It depends neither on the order in the file nor on the metadata: the number to compare two runs by.
    """
    rows = [[name, entries[name].dtype, list(entries[name].shape), digests[name]] for name in sorted(entries)]
    return _sha256(rows)


def metadata_digest(metadata: Mapping[str, str]) -> str:
    """SHA-256 over the canonical JSON of ``format`` and every ``anarch.`` key but the digest itself; other tools may add other keys."""
    ours = {key: text for key, text in metadata.items() if (key == "format" or key.startswith(NAMESPACE)) and key != METADATA_DIGEST}
    return _sha256(ours)


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()  # a damaged name may be no valid text


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            msg = f"{key!r} appears twice"
            raise ValueError(msg)
        table[key] = value
    return table


def _parse(table: Any) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    if not isinstance(table, dict):
        msg = "not a JSON object"
        raise ValueError(msg)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        msg = "the metadata is not a table of strings"
        raise ValueError(msg)
    entries: list[tuple[str, TensorEntry]] = []
    for name, row in table.items():
        dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
        if dtype not in ITEMSIZE:
            msg = f"tensor {name!r} has the unknown dtype {dtype!r}"
            raise ValueError(msg)
        lists = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
        if not lists or not all(type(number) is int and number >= 0 for number in [*shape, *offsets]):
            msg = f"tensor {name!r} has shape {shape!r} and offsets {offsets!r}"
            raise ValueError(msg)
        entry = TensorEntry(dtype, tuple(shape), offsets[0])
        if offsets[1] - offsets[0] != entry.bytes:
            msg = f"tensor {name!r} of shape {shape} takes {entry.bytes:,} bytes, not {offsets[1] - offsets[0]:,}"
            raise ValueError(msg)
        entries.append((name, entry))
    entries.sort(key=lambda item: (item[1].start, item[1].bytes))
    end = 0
    for name, entry in entries:
        if entry.start != end:
            msg = f"tensor {name!r} starts at byte {entry.start:,}, expected {end:,}"
            raise ValueError(msg)
        end += entry.bytes
    return metadata, dict(entries)
