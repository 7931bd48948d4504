"""Safetensors files: written atomically with deterministic bytes, read with their digests checked; no torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import cast

from anarch_core.checkpoint.header import (
    MOST_TENSORS,
    PREFIX,
    RESTORE,
    Header,
    TensorEntry,
    UnsupportedError,
    decode,
    encode,
    metadata_digest,
    tensors_digest,
)
from anarch_core.checkpoint.schema import METADATA_DIGEST, SCHEMA, SCHEMA_KEY, TENSORS_DIGEST
from anarch_core.errors import CheckpointError, RunError
from anarch_core.files.reading import reading
from anarch_core.files.replacing import replacing

_CHUNK = 4 << 20
_MAX_HEADER = 32 * 2**20  # bytes; a tensor takes about 150, and what a network is takes some thousands


def write_file(
    path: Path, entries: Mapping[str, TensorEntry], metadata: Mapping[str, str], pieces: Callable[[str], Iterable[memoryview]]
) -> None:
    """Write a file in one pass over the data, atomically; adds both digests to the metadata.

    Args:
        path: the file; an existing one is replaced when the new one is complete.
        entries: the placed tensors, see :func:`layout`.
        metadata: strings by key.
        pieces: gives the bytes of a tensor by name, in pieces that follow each other; asked for one tensor after the other, and for a piece
            when the one before, which it may take the place of, is written.

    Raises:
        CheckpointError: there are more tensors or metadata than are read again, or the file cannot be written; what was there is untouched.
    """
    digests: dict[str, str] = {}
    unsigned = {**metadata, TENSORS_DIGEST: "0" * 64, METADATA_DIGEST: "0" * 64}
    start = encode(entries, unsigned)
    if len(entries) > MOST_TENSORS or len(start) - PREFIX > _MAX_HEADER:
        msg = (
            f"cannot write {path}: {len(entries):,} tensors and {len(start):,} bytes of names and metadata; "
            f"a file has at most {MOST_TENSORS:,} and {_MAX_HEADER:,}"
        )
        raise CheckpointError(msg)
    try:
        with replacing(path) as file:
            file.write(start)  # holds the place: the digests are known when the data is written
            with ThreadPoolExecutor(1) as hasher:
                for name in entries:
                    digest = hashlib.sha256()
                    for piece in pieces(name):
                        hashed = hasher.submit(digest.update, piece)
                        file.write(piece)
                        hashed.result()
                    digests[name] = digest.hexdigest()
            signed = {**metadata, TENSORS_DIGEST: tensors_digest(entries, digests)}
            signed[METADATA_DIGEST] = metadata_digest(signed)
            file.seek(0)
            file.write(encode(entries, signed))
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


def read_data(path: Path, places: Callable[[str, TensorEntry], Iterable[memoryview]]) -> Header:
    """Read every tensor into the writable memory that is given for it, and check the digest of a file of anarch's schema.

    A file without the schema has no digest; only its structure is checked.

    Args:
        path: the file.
        places: gives memory for the bytes of a tensor, in pieces that follow each other; asked for a piece when the one before is filled.

    Raises:
        CheckpointError: as for :func:`read_header`; or the tensors are not what was written.
    """
    with _reading(path) as file:
        header = _read_header(file, path)
        with ThreadPoolExecutor(1) as hasher:
            digests = {name: _read_hashed(file, path, places(name, entry), hasher) for name, entry in header.tensors.items()}
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


def _read_hashed(file: BufferedReader, path: Path, places: Iterable[memoryview], hasher: ThreadPoolExecutor) -> str:
    """Fill memory from the file; each part is hashed by the one thread of ``hasher`` while the next is read."""
    digest = hashlib.sha256()
    for data in places:
        for start in range(0, len(data), _CHUNK):
            part = data[start : start + _CHUNK]
            _read_exactly(file, path, part)
            hasher.submit(digest.update, part)
        hasher.submit(digest.digest).result()  # all of it is hashed: it may be used, and filled again
    return digest.hexdigest()


def _hash_in_file(file: BufferedReader, path: Path, size: int, scratch: memoryview) -> str:
    digest = hashlib.sha256()
    for start in range(0, size, len(scratch)):
        part = scratch[: size - start]
        _read_exactly(file, path, part)
        digest.update(part)
    return digest.hexdigest()


def _read_exactly(file: BufferedReader, path: Path, data: memoryview) -> None:
    if file.readinto(data) != len(data):
        msg = f"{path} became shorter while it was read; {RESTORE}"
        raise CheckpointError(msg)


@contextmanager
def _reading(path: Path) -> Iterator[BufferedReader]:
    try:
        with reading(path) as file:
            yield cast(BufferedReader, file)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror or error}"
        raise CheckpointError(msg) from error
    except RunError as error:
        raise CheckpointError(str(error)) from error


def _read_header(file: BufferedReader, path: Path) -> Header:
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(PREFIX + 1)
    if start[PREFIX:] not in (b"{", b""):
        what = "is not a safetensors file"
        if start.startswith((b"PK\x03\x04", b"\x80\x02")):
            what = "is a pickled PyTorch file, which anarch never opens; write its state dict with safetensors.torch.save_file"
        msg = f"{path} {what}"
        raise CheckpointError(msg)
    length = int.from_bytes(start[:PREFIX], "little")
    if length > _MAX_HEADER:
        msg = f"{path} is no safetensors file, or has a header of {length:,} bytes; more than {_MAX_HEADER:,} no network needs"
        raise CheckpointError(msg)
    if size < PREFIX + length:
        msg = f"{path} is cut short: {size:,} bytes, and its header alone should take {PREFIX + length:,}; {RESTORE}"
        raise CheckpointError(msg)
    file.seek(PREFIX)
    try:
        header = decode(file.read(length))
    except UnsupportedError as error:
        msg = f"{path} {error}"
        raise CheckpointError(msg) from error
    except ValueError as error:
        msg = f"{path} has a damaged header: {error}; {RESTORE}"
        raise CheckpointError(msg) from error
    _require_schema(header, path)
    expected = header.data_start + header.data_bytes
    if size != expected:
        what = "is cut short" if size < expected else "has bytes after its last tensor"
        msg = f"{path} {what}: {size:,} bytes, expected {expected:,}; {RESTORE}"
        raise CheckpointError(msg)
    return header


def _require_schema(header: Header, path: Path) -> None:
    if not header.ours:
        return
    schema = header.metadata.get(SCHEMA_KEY)
    if schema is None:
        msg = f"{path} was altered: it has keys of anarch and no {SCHEMA_KEY}; {RESTORE}"
        raise CheckpointError(msg)
    if schema.partition(".")[0] != str(SCHEMA[0]):
        msg = f"{path} follows checkpoint schema {schema:.20}; this version of anarch reads {SCHEMA[0]}.x: install a newer anarch"
        raise CheckpointError(msg)
    if header.metadata.get(METADATA_DIGEST) != metadata_digest(header.metadata):
        msg = f"{path} was altered: its metadata does not match {METADATA_DIGEST}; {RESTORE}"
        raise CheckpointError(msg)


def _require_tensors(header: Header, digests: Mapping[str, str], path: Path) -> None:
    if header.metadata.get(TENSORS_DIGEST) != tensors_digest(header.tensors, digests):
        msg = f"{path} was altered: its tensors do not match {TENSORS_DIGEST}; {RESTORE}"
        raise CheckpointError(msg)
