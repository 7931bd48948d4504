"""The safetensors container: header, layout and digests, with the standard library alone (no torch).

A file is eight bytes (the header's length, little-endian), the header (JSON: ``__metadata__`` and one entry per tensor), and the tensors'
bytes without gaps. The safetensors package writes metadata in an order that differs from process to process; here everything is sorted, so
equal content gives equal files. Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import attrs

from anarch_core.atomic import replacing
from anarch_core.errors import CheckpointError
from anarch_core.options import canonical_json

SCHEMA = (1, 0)
ITEMSIZE = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
TENSORS_DIGEST = "anarch.tensors_sha256"
METADATA_DIGEST = "anarch.metadata_sha256"

_PREFIX = 8
_CHUNK = 4 << 20
_MAX_HEADER = 100_000_000  # the safetensors package refuses longer ones
_RESTORE = "use an intact copy, or delete the file and make it again"


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
        return any(key.startswith("anarch.") for key in self.metadata)

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
            msg = f"metadata {key!r} is not JSON: {self.metadata[key]!r:.80}; {_RESTORE}"
            raise CheckpointError(msg) from error


def layout(shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, TensorEntry]:
    """Place tensors, given as (dtype, shape) by name: wide elements first, so that each is aligned; then by name."""
    entries: dict[str, TensorEntry] = {}
    start = 0
    for name, (dtype, shape) in sorted(shapes.items(), key=lambda item: (-ITEMSIZE[item[1][0]], item[0])):
        entries[name] = TensorEntry(dtype, shape, start)
        start += entries[name].bytes
    return entries


def write_file(path: Path, entries: Mapping[str, TensorEntry], metadata: Mapping[str, str], buffer: Callable[[str], memoryview]) -> None:
    """Write a file in one pass over the data, atomically; adds both digests to the metadata.

    Args:
        path: the file; an existing one is replaced when the new one is complete.
        entries: the placed tensors, see :func:`layout`.
        metadata: strings by key.
        buffer: gives the bytes of a tensor by name; asked for one at a time.

    Raises:
        CheckpointError: the file cannot be written; what was there is untouched.
    """
    digests: dict[str, str] = {}
    unsigned = {**metadata, TENSORS_DIGEST: "0" * 64, METADATA_DIGEST: "0" * 64}
    try:
        with replacing(path) as file:
            file.write(_encode(entries, unsigned))  # holds the place: the digests are known when the data is written
            with ThreadPoolExecutor(1) as hasher:
                for name in entries:
                    data = buffer(name)
                    digest = hasher.submit(_hash, data)
                    file.write(data)
                    digests[name] = digest.result()
            signed = {**metadata, TENSORS_DIGEST: tensors_digest(entries, digests)}
            signed[METADATA_DIGEST] = metadata_digest(signed)
            file.seek(0)
            file.write(_encode(entries, signed))
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror or error}"
        raise CheckpointError(msg) from error


def read_header(path: str | Path) -> Header:
    """Read and check a header. Imports no torch.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, not a safetensors file, or of a schema that this version cannot read; or
            its metadata, in a file of anarch's schema, is not what was written.
    """
    path = Path(path)
    with _reading(path) as file:
        return _read_header(file, path)


def read_data(path: Path, buffer: Callable[[str, TensorEntry], memoryview]) -> Header:
    """Read every tensor into the writable memory that ``buffer`` gives for it, and check the digest of a file of anarch's schema.

    A file without the schema has no digest; only its structure is checked.

    Raises:
        CheckpointError: as for :func:`read_header`; or the tensors are not what was written.
    """
    with _reading(path) as file:
        header = _read_header(file, path)
        with ThreadPoolExecutor(1) as hasher:
            digests = {name: _read_hashed(file, path, buffer(name, entry), hasher) for name, entry in header.tensors.items()}
    if header.ours:
        _require_tensors(header, digests, path)
    return header


def verify(path: str | Path) -> Header:
    """Read a whole file and check its digest, in constant memory and without torch.

    Raises:
        CheckpointError: as for :func:`read_data`; or the file carries no digest.
    """
    path = Path(path)
    scratch = memoryview(bytearray(_CHUNK))
    with _reading(path) as file:
        header = _read_header(file, path)
        if not header.ours:
            msg = f"{path} was not written by anarch and carries no digest to verify"
            raise CheckpointError(msg)
        digests = {name: _hash_in_file(file, path, entry.bytes, scratch) for name, entry in header.tensors.items()}
    _require_tensors(header, digests, path)
    return header


def tensors_digest(entries: Mapping[str, TensorEntry], digests: Mapping[str, str]) -> str:
    """The digest of a set of tensors: SHA-256 over the canonical JSON of ``[[name, dtype, shape, SHA-256 of the bytes], ...]``, by name.

    It depends neither on the order in the file nor on the metadata: the number to compare two runs by.
    """
    rows = [[name, entries[name].dtype, list(entries[name].shape), digests[name]] for name in sorted(entries)]
    return _sha256(rows)


def metadata_digest(metadata: Mapping[str, str]) -> str:
    """SHA-256 over the canonical JSON of ``format`` and every ``anarch.`` key but the digest itself; other tools may add other keys."""
    ours = {key: text for key, text in metadata.items() if (key == "format" or key.startswith("anarch.")) and key != METADATA_DIGEST}
    return _sha256(ours)


def _sha256(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()  # a damaged name may be no valid text


def _encode(entries: Mapping[str, TensorEntry], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    for name, entry in entries.items():
        header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [entry.start, entry.start + entry.bytes]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _PREFIX)  # data stays aligned to eight bytes
    return len(text).to_bytes(_PREFIX, "little") + text


def _hash(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _read_hashed(file: BufferedReader, path: Path, data: memoryview, hasher: ThreadPoolExecutor) -> str:
    """Fill ``data`` from the file; each part is hashed by the one thread of ``hasher`` while the next is read."""
    digest = hashlib.sha256()
    for start in range(0, len(data), _CHUNK):
        part = data[start : start + _CHUNK]
        _read_exactly(file, path, part)
        hasher.submit(digest.update, part)
    return hasher.submit(digest.hexdigest).result()


def _hash_in_file(file: BufferedReader, path: Path, size: int, scratch: memoryview) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, len(scratch)):
        part = scratch[: size - start]
        _read_exactly(file, path, part)
        digest.update(part)
    return digest.hexdigest()


def _read_exactly(file: BufferedReader, path: Path, data: memoryview) -> None:
    if file.readinto(data) != len(data):
        msg = f"{path} became shorter while it was read; {_RESTORE}"
        raise CheckpointError(msg)


@contextmanager
def _reading(path: Path) -> Iterator[BufferedReader]:
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror or error}"
        raise CheckpointError(msg) from error


def _read_header(file: BufferedReader, path: Path) -> Header:
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(_PREFIX + 1)
    if start[_PREFIX:] not in (b"{", b""):
        what = "is not a safetensors file"
        if start.startswith((b"PK\x03\x04", b"\x80\x02")):
            what = "is a pickled PyTorch file, which anarch never opens; write its state dict with safetensors.torch.save_file"
        msg = f"{path} {what}"
        raise CheckpointError(msg)
    length = int.from_bytes(start[:_PREFIX], "little")
    if size < _PREFIX + length:
        msg = f"{path} is cut short: {size:,} bytes, and its header alone should take {_PREFIX + length:,}; {_RESTORE}"
        raise CheckpointError(msg)
    if length > _MAX_HEADER:
        msg = f"{path} has a header of {length:,} bytes; at most {_MAX_HEADER:,} are allowed"
        raise CheckpointError(msg)
    file.seek(_PREFIX)
    try:
        table = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
        metadata, tensors = _parse(table)
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
        msg = f"{path} has a damaged header: {error}; {_RESTORE}"
        raise CheckpointError(msg) from error
    header = Header(metadata=metadata, tensors=tensors, data_start=_PREFIX + length)
    _require_schema(header, path)
    expected = header.data_start + header.data_bytes
    if size != expected:
        what = "is cut short" if size < expected else "has bytes after its last tensor"
        msg = f"{path} {what}: {size:,} bytes, expected {expected:,}; {_RESTORE}"
        raise CheckpointError(msg)
    return header


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


def _require_schema(header: Header, path: Path) -> None:
    if not header.ours:
        return
    schema = header.metadata.get("anarch.schema", "")
    if schema and schema.partition(".")[0] != str(SCHEMA[0]):
        msg = f"{path} follows checkpoint schema {schema}; this version of anarch reads {SCHEMA[0]}.x: install a newer anarch"
        raise CheckpointError(msg)
    if header.metadata.get(METADATA_DIGEST) != metadata_digest(header.metadata):
        msg = f"{path} was altered: its metadata does not match {METADATA_DIGEST}; {_RESTORE}"
        raise CheckpointError(msg)


def _require_tensors(header: Header, digests: Mapping[str, str], path: Path) -> None:
    if header.metadata.get(TENSORS_DIGEST) != tensors_digest(header.tensors, digests):
        msg = f"{path} was altered: its tensors do not match {TENSORS_DIGEST}; {_RESTORE}"
        raise CheckpointError(msg)
