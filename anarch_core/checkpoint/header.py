"""The header of a safetensors file: what it says, how tensors are laid out, and the digests; the standard library alone, no torch.

A file is eight bytes (the header's length, little-endian), the header (JSON: ``__metadata__`` and one entry per tensor), and the tensors'
bytes without gaps. The safetensors package writes metadata in an order that differs from process to process; here everything is sorted, so
equal content gives equal files. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import attrs

from anarch_core.checkpoint.schema import METADATA_DIGEST, NAMESPACE
from anarch_core.errors import CheckpointError
from anarch_core.files.tables import canonical_json

BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of an element, by dtype; all that safetensors 0.8 knows, of which a few can only be shown (see ``state.py``)."""
RESTORE = "use an intact copy, or make it again"
PREFIX = 8
"""Bytes of the header's length."""

MOST_TENSORS = 2**16
"""Tensors in a file. Of the largest networks of vision, the optimizer's state included, there are a few thousand."""

_MOST_MARKS = 16 * MOST_TENSORS  # an entry has about ten
_MOST_DIMENSIONS = 64  # of a tensor of PyTorch
_LARGEST = 2**63
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


class UnsupportedError(ValueError):
    """A header that need not be damaged, but that this version does not read."""


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
        return math.prod(self.shape) * BITS[self.dtype] // 8


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
            CheckpointError: the text is not JSON, or too much of it.
        """
        if key not in self.metadata:
            return None
        try:
            _require_bounded(self.metadata[key].encode())
            return json.loads(self.metadata[key])
        except UnsupportedError as error:
            msg = f"metadata {key!r} {error}"
            raise CheckpointError(msg) from error
        except (ValueError, RecursionError) as error:
            msg = f"metadata {key!r} is not JSON: {self.metadata[key]!r:.80}; {RESTORE}"
            raise CheckpointError(msg) from error


def layout(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, TensorEntry]:
    """Place tensors, given as (dtype, shape) by name: wide elements first, so that each is aligned; then by name."""
    entries: dict[str, TensorEntry] = {}
    start = 0
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: (-BITS[item[1][0]], item[0])):
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
        UnsupportedError: it has more tensors than a file of networks can have, or types of numbers that are not known.
        ValueError: it makes no sense; the message says why.
    """
    _require_bounded(text)
    try:
        metadata, tensors = _parse(json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant))
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


def _require_bounded(text: bytes) -> None:
    """Refuse what would take long and much memory to parse, by counting what is not inside of a string."""
    marks = _STRING.sub(b"", text)
    count = sum(marks.count(mark) for mark in (b"[", b"{", b","))
    if count > _MOST_MARKS:
        msg = f"has {count:,} brackets and commas; more than {_MOST_MARKS:,} no network needs, so it is not read"
        raise UnsupportedError(msg)


def _refuse_constant(name: str) -> Any:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            msg = f"{key!r:.80} appears twice"
            raise ValueError(msg)
        table[key] = value
    return table


def _parse(table: Any) -> tuple[dict[str, str], dict[str, TensorEntry]]:
    if not isinstance(table, dict):
        msg = "not a JSON object"
        raise ValueError(msg)
    metadata = table.pop("__metadata__", None)
    metadata = {} if metadata is None else metadata
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        msg = "the metadata is not a table of strings"
        raise ValueError(msg)
    "".join([*table, *metadata, *metadata.values()]).encode()  # raises for halves of characters, which no UTF-8 has
    if len(table) > MOST_TENSORS:
        msg = f"has {len(table):,} tensors; more than {MOST_TENSORS:,} are not read"
        raise UnsupportedError(msg)
    entries: list[tuple[str, TensorEntry]] = []
    for name, row in table.items():
        dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
        if dtype not in BITS:
            msg = f"has a tensor {name!r:.80} of type {dtype!r:.80}, which is not known here; a newer version may know it"
            raise UnsupportedError(msg)
        lists = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2 and len(shape) <= _MOST_DIMENSIONS
        if not lists or not all(type(number) is int and 0 <= number < _LARGEST for number in [*shape, *offsets]):
            msg = f"tensor {name!r:.80} has shape {shape!r:.80} and offsets {offsets!r:.80}"
            raise ValueError(msg)
        entry = TensorEntry(dtype, tuple(shape), offsets[0])
        numbers = math.prod(size for size in shape if size)
        if numbers >= _LARGEST or (numbers * BITS[dtype] % 8 and 0 not in shape) or offsets[1] - offsets[0] != entry.bytes:
            msg = f"tensor {name!r:.80} of shape {shape!r:.80} does not take {offsets[1] - offsets[0]:,} bytes of {dtype}"
            raise ValueError(msg)
        entries.append((name, entry))
    entries.sort(key=lambda item: (item[1].start, item[1].bytes))
    end = 0
    for name, entry in entries:
        if entry.start != end:
            msg = f"tensor {name!r:.80} starts at byte {entry.start:,}, expected {end:,}"
            raise ValueError(msg)
        end += entry.bytes
    return metadata, dict(entries)
