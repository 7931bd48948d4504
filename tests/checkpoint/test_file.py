"""The container: header, layout, digests, damage. State files: tensors in, the same tensors out."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from anarch_core.checkpoint.file import read_header, verify, write_file
from anarch_core.checkpoint.header import BITS, layout
from anarch_core.checkpoint.state import _NAMES, load_state, read_tensors, save_state
from anarch_core.errors import CheckpointError

relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(raw(a), raw(b))


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.resolve_conj().contiguous().reshape(-1).view(torch.uint8)


def random_tensor(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.rand(shape) > 0.5
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(shape).to(dtype)
    return torch.randint(0, 100, shape).to(dtype)


def ours(metadata: dict[str, str]) -> dict[str, str]:
    return {key: text for key, text in metadata.items() if key.startswith("anarch.")}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "layer.weight": torch.randn(3, 4),
        "layer.bias": torch.randn(3),
        "steps": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
    }


@pytest.fixture
def file(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "state.safetensors"
    save_state(path, state, {"anarch.run_id": "r1", "note": "größer"})
    return path


@pytest.mark.parametrize("dtype", _NAMES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (2, 3, 4)], ids=str)
def test_every_dtype_and_shape_comes_back(dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    tensor = random_tensor(dtype, shape)
    save_state(tmp_path / "x", {"x": tensor})
    assert same(load_state(tmp_path / "x")[0]["x"], tensor)
    assert 8 * tensor.element_size() == BITS[_NAMES[dtype]]


@relaxed
@given(
    shapes=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from([torch.float32, torch.bfloat16, torch.bool, torch.int64]), st.lists(st.integers(0, 4), max_size=3)),
        max_size=6,
    ),
    metadata=st.dictionaries(
        st.text(st.characters(codec="utf-8")).filter(lambda key: key != "format" and not key.startswith("anarch.")),
        st.text(st.characters(codec="utf-8")),
        max_size=4,
    ),
)
def test_any_names_and_metadata_come_back(shapes: dict, metadata: dict[str, str], tmp_path: Path) -> None:
    tensors = {name: random_tensor(dtype, tuple(shape)) for name, (dtype, shape) in shapes.items()}
    path = tmp_path / "any.safetensors"
    save_state(path, tensors, metadata)
    again, strings = load_state(path)
    assert again.keys() == tensors.keys()
    assert all(same(again[name], tensors[name]) for name in tensors)
    assert {key: strings[key] for key in metadata} == metadata
    assert load_file(path).keys() == tensors.keys()


def test_equal_content_gives_equal_bytes_in_any_process(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    code = (
        "import sys, torch; from anarch_core.checkpoint.state import save_state\n"
        "names = sys.argv[2].split(',')\n"
        "save_state(sys.argv[1], {n: torch.arange(6.).reshape(2, 3) + i for i, n in sorted(enumerate(names), key=lambda p: hash(p[1]))},"
        " {n: n for n in set(names)})"
    )
    digests = set()
    for seed in ("1", "2", "3"):
        path = tmp_path / seed
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", code, str(path), "e,d,c,b,a"], check=True, env=environment)
        digests.add(hashlib.sha256(path.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_rewriting_a_loaded_file_gives_the_same_bytes(file: Path, tmp_path: Path) -> None:
    save_state(tmp_path / "copy", *load_state(file))
    assert (tmp_path / "copy").read_bytes() == file.read_bytes()


def test_unknown_metadata_is_kept_and_computed_metadata_is_not(file: Path, tmp_path: Path) -> None:
    tensors, metadata = load_state(file)
    save_state(tmp_path / "copy", {"only": tensors["steps"]}, metadata)
    again = load_state(tmp_path / "copy")[1]
    assert again["note"] == "größer"
    assert again["anarch.tensors_sha256"] != metadata["anarch.tensors_sha256"]


def test_other_tools_read_the_file(file: Path, state: dict[str, torch.Tensor]) -> None:
    assert all(same(tensor, state[name]) for name, tensor in load_file(file).items())
    with safe_open(file, framework="pt") as opened:
        assert opened.metadata()["format"] == "pt"


def test_data_is_aligned_to_its_elements(tmp_path: Path) -> None:
    save_state(tmp_path / "x", {"a": torch.ones(3, dtype=torch.bool), "b": torch.ones(1), "c": torch.tensor(1), "d": torch.ones(1).half()})
    header = read_header(tmp_path / "x")
    assert header.data_start % 8 == 0
    assert all(8 * entry.start % BITS[entry.dtype] == 0 for entry in header.tensors.values())


def test_the_digest_is_of_content_not_of_order_or_metadata(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3), "b": torch.arange(4)}
    save_state(tmp_path / "x", tensors, {"k": "1"})
    save_state(tmp_path / "y", dict(reversed(tensors.items())), {"k": "2"})
    save_state(tmp_path / "z", tensors | {"a": torch.ones(3, 1)})
    x, y, z = (read_header(tmp_path / name).metadata["anarch.tensors_sha256"] for name in "xyz")
    assert x == y != z


def test_the_digest_is_the_documented_one(file: Path, state: dict[str, torch.Tensor]) -> None:
    rows = []
    for name in sorted(state):
        data = hashlib.sha256(bytes(raw(state[name]).tolist())).hexdigest()
        rows.append(
            [name, {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}[state[name].dtype], list(state[name].shape), data]
        )
    expected = hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
    assert read_header(file).metadata["anarch.tensors_sha256"] == expected


def test_views_are_stored_by_value_and_ties_once(tmp_path: Path) -> None:
    weight = torch.randn(64, 64)
    tensors = {"b": weight, "a": weight, "row": weight[0], "transposed": weight.t(), "expanded": torch.ones(1, 2).expand(3, 2)}
    tensors["conjugate"] = torch.randn(3, dtype=torch.complex64).conj()
    save_state(tmp_path / "x", tensors)
    again, metadata = load_state(tmp_path / "x")
    assert all(same(again[name], tensors[name]) for name in tensors)
    assert json.loads(metadata["anarch.tied"]) == {"b": "a"}
    assert again["a"] is again["b"]
    assert "b" not in read_header(tmp_path / "x").tensors


@pytest.mark.parametrize("tied", ["[1]", '{"b": "a"}', '{"b": ["a"]}', "{"])
def test_ties_that_make_no_sense_are_refused(tied: str, tmp_path: Path) -> None:
    write_file(tmp_path / "x", {}, {"anarch.schema": "1.0", "anarch.tied": tied}, lambda _: ())
    with pytest.raises(CheckpointError, match=r"ties names to tensors that it does not hold|'anarch\.tied' is not JSON"):
        load_state(tmp_path / "x")


def test_loaded_tensors_are_writable_and_own_their_memory(file: Path, state: dict[str, torch.Tensor]) -> None:
    tensors = load_state(file)[0]
    tensors["layer.weight"].zero_()
    assert same(load_state(file)[0]["layer.weight"], state["layer.weight"])


@relaxed
@given(data=st.data())
def test_a_truncated_file_is_refused_wherever_it_ends(data: st.DataObject, file: Path) -> None:
    content = file.read_bytes()
    end = data.draw(st.integers(0, len(content) - 1))
    short = file.with_name("short")
    short.write_bytes(content[:end])
    for read in (read_header, load_state, verify):
        with pytest.raises(CheckpointError, match=r"short is cut short: .* bytes"):
            read(short)


@settings(relaxed, max_examples=10 * settings.default.max_examples)  # bits are many, and cheap
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(data: st.DataObject, file: Path, state: dict[str, torch.Tensor]) -> None:
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= 1 << data.draw(st.integers(0, 7))
    altered = file.with_name("altered")
    altered.write_bytes(content)
    refusal = None
    try:
        tensors, metadata = load_state(altered)
    except CheckpointError as error:
        refusal = str(error)
    if refusal is None:  # it was a blank of the padding, or a key that belongs to another tool
        assert all(same(tensors[name], state[name]) for name in state)
        assert ours(metadata) == ours(load_state(file)[1])
    else:
        assert str(altered) in refusal
        assert "\n" not in refusal


def test_bytes_after_the_end_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="has bytes after its last tensor"):
        load_state(file)


def test_altered_data_is_named(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert read_header(file)
    for read in (load_state, verify):
        with pytest.raises(CheckpointError, match=r"was altered: its tensors do not match anarch\.tensors_sha256; use an intact copy"):
            read(file)


def header_file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"{", "damaged header"),
        (b"{\xff}", "damaged header"),
        (b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}', "'a' appears twice"),
        ({"__metadata__": {"a": 1}}, "not a table of strings"),
        ({"a": 3}, "damaged header"),
        ({"a": {"dtype": "F99", "shape": [], "data_offsets": [0, 4]}}, "has a tensor 'a' of type 'F99', which is not known here"),
        ({"a": {"dtype": ["F32"], "shape": [], "data_offsets": [0, 4]}}, "damaged header"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "has shape"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "has shape"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, r"of shape \[2\] does not take 4 bytes of F32"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "starts at byte 4, expected 0"),
        ({f"a{i}": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for i in (0, 1)}, "starts at byte 0, expected 4"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_header(header_file(tmp_path / "x", header, bytes(4)))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="damaged header"):
        read_header(header_file(tmp_path / "x", b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}"))


def test_a_huge_header_length_allocates_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="or has a header of 4,611,686,018,427,387,904 bytes"):
        read_header(tmp_path / "x")


def test_a_header_that_no_network_needs_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    with monkeypatch.context() as patch:
        patch.setattr("anarch_core.checkpoint.header.MOST_TENSORS", 2)
        with pytest.raises(CheckpointError, match="has 3 tensors; more than 2 are not read"):
            read_header(header_file(tmp_path / "x", dict.fromkeys("abc", row)))
    with pytest.raises(CheckpointError, match="has 2,000,003 brackets and commas; more than 1,048,576 no network needs"):
        read_header(header_file(tmp_path / "x", b'{"a":{"shape":[' + b"[]," * 1_000_000 + b"0]}}"))


def test_nothing_is_written_that_would_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anarch_core.checkpoint.file.MOST_TENSORS", 2)
    with pytest.raises(CheckpointError, match=r"cannot write .*: 3 tensors and .* a file has at most 2 and"):
        save_state(tmp_path / "x", {name: torch.empty(0) for name in "abc"})


def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    with pytest.raises(CheckpointError, match="is a pipe; expected a file"):
        read_header(tmp_path / "x")


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "x.pt")
    (tmp_path / "x.txt").write_text("some text that is long enough")
    with pytest.raises(CheckpointError, match=r"x\.pt is a pickled PyTorch file, which anarch never opens"):
        load_state(tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.txt is not a safetensors file"):
        load_state(tmp_path / "x.txt")
    with pytest.raises(CheckpointError, match=r"cannot read .*: No such file"):
        load_state(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"is a folder; expected a file"):
        load_state(tmp_path)


def test_a_file_of_another_tool_is_read_but_is_no_state(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "plain", {"format": "pt", "author": "x"})
    tensors, header = read_tensors(tmp_path / "plain")
    assert same(tensors["a"], torch.ones(2))
    assert header.metadata["author"] == "x"
    with pytest.raises(CheckpointError, match="was not written by anarch"):
        load_state(tmp_path / "plain")
    with pytest.raises(CheckpointError, match="carries no digest"):
        verify(tmp_path / "plain")


@pytest.mark.parametrize(("schema", "readable"), [("1.0", True), ("1.9", True), ("2.0", False)])
def test_a_newer_minor_schema_is_read_and_another_major_refused(
    schema: str, readable: bool, file: Path, monkeypatch: pytest.MonkeyPatch, state: dict[str, torch.Tensor]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("anarch_core.checkpoint.state.SCHEMA", tuple(map(int, schema.split("."))))
        save_state(file, state, {"anarch.new_in_that_version": "1"})
    if readable:
        assert load_state(file)[1]["anarch.schema"] == schema
    else:
        with pytest.raises(CheckpointError, match=r"follows checkpoint schema 2\.0; this version of anarch reads 1\.x"):
            load_state(file)


def test_what_cannot_be_stored_is_refused_and_the_old_file_kept(file: Path) -> None:
    before = file.read_bytes()
    for tensors, message in [
        ({"x": torch.ones(2, dtype=torch.complex128)}, "safetensors has no torch.complex128"),
        ({"x": torch.ones(2, device="meta")}, "on meta"),
        ({"x": torch.eye(2).to_sparse()}, "torch.sparse_coo"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            save_state(file, tensors)
    with pytest.raises(CheckpointError, match="metadata 'k' must be a string, got int"):
        save_state(file, {}, {"k": 1})  # type: ignore[dict-item]
    assert file.read_bytes() == before


def test_a_write_that_fails_leaves_the_old_file_and_no_other(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot write .*: No space left on device"):
        save_state(file, {"x": torch.ones(3)})
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot write .*none/x: No such file or directory"):
        save_state(tmp_path / "none" / "x", {})


def test_layout_puts_wide_elements_first_then_names() -> None:
    entries = layout({"b": ("F32", (1,)), "a": ("BOOL", (3,)), "c": ("F64", ()), "aa": ("F32", (2,))})
    assert [(name, entry.start) for name, entry in entries.items()] == [("c", 0), ("aa", 8), ("b", 16), ("a", 20)]


def test_the_header_is_read_without_torch(file: Path) -> None:
    code = (
        "import sys; from anarch_core.checkpoint.file import read_header, verify\n"
        "verify(sys.argv[1]); print(sorted(read_header(sys.argv[1]).tensors), 'torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", code, str(file)], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "['layer.bias', 'layer.weight', 'mask', 'steps'] False"
