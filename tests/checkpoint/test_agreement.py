"""Our reader, ``safetensors`` and the few lines of JSON in the documentation agree: on files of ours, and on what is a file at all.

The files are those of the test-suite of safetensors, written here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from safetensors.torch import load_file

from anarch_core.checkpoint.file import read_header, verify
from anarch_core.checkpoint.header import BITS
from anarch_core.checkpoint.state import _DTYPES, read_tensors, save_state
from anarch_core.errors import CheckpointError


def file_of(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> Path:
    path.write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header + data)
    return path


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def plainly(path: Path) -> tuple[dict[str, str], dict[str, tuple[str, list[int]]]]:
    """What the documentation's example reads: metadata, and (dtype, shape) by name."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    metadata = header.pop("__metadata__", {})
    return metadata, {name: (row["dtype"], row["shape"]) for name, row in header.items()}


def agree(path: Path) -> None:
    """All readers read the same of a file."""
    header = read_header(path)
    metadata, rows = plainly(path)
    assert dict(header.metadata) == metadata
    assert {name: (each.dtype, list(each.shape)) for name, each in header.tensors.items()} == rows
    with safetensors.safe_open(path, framework="pt") as opened:
        assert (opened.metadata() or {}) == metadata
        assert set(opened.keys()) == set(rows)
    ours, _ = read_tensors(path)
    theirs = load_file(path)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert ours[name].shape == tensor.shape
        assert torch.equal(ours[name].reshape(-1).view(torch.uint8), tensor.contiguous().reshape(-1).view(torch.uint8))
    assert theirs.keys() <= ours.keys()


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    count = torch.empty(shape).numel()
    if dtype == torch.bool:
        return torch.arange(count).reshape(shape) % 2 == 0
    return (torch.arange(count * torch.empty((), dtype=dtype).element_size()) % 61).to(torch.uint8).view(dtype).reshape(shape)


def test_files_of_ours(tmp_path):
    shapes = [(), (0,), (3, 0, 2), (5,), (2, 3, 4)]
    tensors = {f"{dtype}.{index} ü→": random_tensor(dtype, shape) for dtype in _DTYPES.values() for index, shape in enumerate(shapes)}
    tensors["tied"] = tensors["torch.float32.4 ü→"]
    save_state(tmp_path / "a", tensors, {"note": 'größer "quoted"\n', "": "empty"})
    agree(tmp_path / "a")
    verify(tmp_path / "a")
    save_state(tmp_path / "b", {})
    agree(tmp_path / "b")


@pytest.mark.parametrize(
    ("header", "data"),
    [
        (b"{}", b""),
        (b"{}      ", b""),
        (b'{"__metadata__":{}}', b""),
        (b'{"__metadata__":{"a":"b","\\u00fc":"\\n"}}', b""),
        (json.dumps({"scalar": entry("F64", [], 0, 8)}).encode(), bytes(range(8))),
        (json.dumps({"none": entry("F32", [2, 0], 0, 0), "one": entry("U8", [1], 0, 1)}).encode(), b"x"),
        (json.dumps({"b": entry("I16", [2], 4, 8), "a": entry("F32", [1], 0, 4)}, indent=1).encode() + b" " * 7, bytes(8)),
        (json.dumps({"name with \" and \\ and é": entry("BF16", [1], 0, 2)}, ensure_ascii=False).encode(), bytes(2)),
        (json.dumps({"not aligned": entry("U8", [3], 0, 3), "float": entry("F32", [1], 3, 7)}).encode(), bytes(7)),
        (json.dumps({"": entry("BOOL", [2], 0, 2)}).encode(), b"\0\1"),
    ],
    ids=str,
)  # fmt: skip
def test_files_of_others(header, data, tmp_path):
    agree(file_of(tmp_path / "a", header, data))


@pytest.mark.parametrize("dtype", sorted(BITS))
def test_every_type_is_known_and_its_size(dtype, tmp_path):
    file = file_of(tmp_path / "a", json.dumps({"a": entry(dtype, [4, 2], 0, BITS[dtype])}).encode(), bytes(BITS[dtype]))
    assert read_header(file).tensors["a"].bytes == BITS[dtype]
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            assert list(opened.keys()) == ["a"]
    except safetensors.SafetensorError as error:
        assert "unknown variant" in str(error)  # noqa: PT017  # of a version of safetensors that does not know it yet
    if dtype not in _DTYPES:
        with pytest.raises(CheckpointError, match=f"has a tensor 'a' of type {dtype}, which is not supported; expected one of"):
            read_tensors(file)


ONE = entry("F32", [1], 0, 4)


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        (b"", b"", 0),
        (b"", b"", 1),
        (b"{}", b"", 2**64 - 1),
        (b"{}", b"", 100_000_001),
        (b"{}", b"", 3),
        (b"{", b"", None),
        (b"[]", b"", None),
        (b"\xff{}", b"", None),
        (b'{"\xff":1}', b"", None),
        (b"{}", b"x", None),
        (b'{"__metadata__":{"a":1}}', b"", None),
        (json.dumps({"a": ONE}).encode(), bytes(5), None),
        (json.dumps({"a": ONE}).encode(), bytes(3), None),
        (json.dumps({"a": entry("F32", [1], 4, 8)}).encode(), bytes(8), None),
        (json.dumps({"a": ONE, "b": entry("F32", [1], 8, 12)}).encode(), bytes(12), None),
        (json.dumps({"a": ONE, "b": entry("F32", [1], 2, 6)}).encode(), bytes(6), None),
        (json.dumps({"a": ONE, "b": ONE}).encode(), bytes(4), None),
        (json.dumps({"a": entry("F32", [1], 4, 0)}).encode(), bytes(4), None),
        (json.dumps({"a": entry("F32", [2, 2], 0, 4)}).encode(), bytes(4), None),
        (json.dumps({"a": entry("I32", [2, 2**64 - 2], 0, 16)}).encode(), bytes(16), None),
        (json.dumps({"a": entry("I32", [2, 2**63], 0, 16)}).encode(), bytes(16), None),
        (json.dumps({"a": entry("F32", [-1], 0, 4)}).encode(), bytes(4), None),
        (json.dumps({"a": entry("F4", [1], 0, 1)}).encode(), bytes(1), None),
        (json.dumps({"a": entry("F33", [1], 0, 4)}).encode(), bytes(4), None),
        (json.dumps({"a": {"dtype": "F32", "shape": [1]}}).encode(), bytes(4), None),
        (b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', bytes(4), None),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},}', bytes(4), None),
        (b'{"\\ud800":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4), None),
    ],
    ids=str,
)
@pytest.mark.parametrize("read", [read_header, load_file])
def test_what_is_no_file_is_none_to_any(header, data, length, read: Callable[[Path], object], tmp_path):
    file = file_of(tmp_path / "a", header, data, length)
    with pytest.raises((CheckpointError, safetensors.SafetensorError)):
        read(file)
