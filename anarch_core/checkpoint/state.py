"""Named tensors and string metadata on disk: model weights, optimizer and generator state, a probe's results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from anarch_core.checkpoint.file import read_data, write_file
from anarch_core.checkpoint.header import Header, TensorEntry, layout
from anarch_core.checkpoint.schema import CORE_VERSION, SCHEMA, SCHEMA_KEY, TIED
from anarch_core.errors import CheckpointError
from anarch_core.files.tables import canonical_json
from anarch_core.version import __version__

_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}


def save_state(path: str | Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors and metadata to a safetensors file: atomically, equal content giving equal bytes.

    Tensors are written straight from their memory, any device, any strides; only one that is not contiguous on the CPU is copied, alone.
    Names that share one tensor are written once and listed under ``anarch.tied``; :func:`load_state` ties them again.

    Args:
        path: the file; replaced if it exists.
        tensors: by name; any dense dtype of safetensors, scalars and empty ones included.
        metadata: strings by key. ``format``, ``anarch.schema``, ``anarch.core_version``, ``anarch.tied`` and the digests are set here, so
            that the metadata of a loaded file can be passed on as it is.

    Raises:
        CheckpointError: a tensor cannot be stored, a metadata value is not a string, or the file cannot be written.
    """
    kept, tied = _resolve_ties(tensors)
    entries = layout({name: (_dtype_name(name, tensor), tuple(tensor.shape)) for name, tensor in kept.items()})
    strings = {key: text for key, text in (metadata or {}).items() if key != TIED}
    for key, text in strings.items():
        if not isinstance(text, str):
            msg = f"metadata {key!r} must be a string, got {type(text).__name__}; encode it as JSON"
            raise CheckpointError(msg)
    strings |= {"format": "pt", SCHEMA_KEY: "{}.{}".format(*SCHEMA), CORE_VERSION: __version__}
    if tied:
        strings[TIED] = canonical_json(tied)
    write_file(Path(path), entries, strings, lambda name: _bytes_of(kept[name]))


def load_state(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read what :func:`save_state` wrote; both digests are verified.

    Returns:
        tensors on the CPU by name, and all metadata.

    Raises:
        CheckpointError: the file is missing, truncated, altered, of another schema, or not written by anarch.
    """
    tensors, header = read_tensors(path)
    if not header.ours:
        msg = f"{path} is a safetensors file, but was not written by anarch: it has no metadata of the schema"
        raise CheckpointError(msg)
    return tensors, dict(header.metadata)


def read_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], Header]:
    """Read any safetensors file; digests are verified where it has them.

    Returns:
        tensors on the CPU by name, and the header.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, altered or of another schema.
    """
    tensors: dict[str, torch.Tensor] = {}

    def allocate(name: str, entry: TensorEntry) -> memoryview:
        if entry.dtype not in _DTYPES:
            msg = f"{path} has a tensor {name!r:.80} of type {entry.dtype}, which is not supported; expected one of {', '.join(_DTYPES)}"
            raise CheckpointError(msg)
        tensors[name] = torch.empty(entry.shape, dtype=_DTYPES[entry.dtype], device="cpu")
        return _bytes_of(tensors[name])

    header = read_data(Path(path), allocate)
    tied = (header.table(TIED) if header.ours else None) or {}
    if not isinstance(tied, dict) or not all(isinstance(kept, str) and kept in tensors for kept in tied.values()):
        msg = f"{path} ties names to tensors that it does not hold: {header.metadata[TIED]:.80}"
        raise CheckpointError(msg)
    tensors |= {dropped: tensors[kept] for dropped, kept in tied.items()}
    return dict(sorted(tensors.items())), header


def _resolve_ties(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    kept: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    names: dict[object, str] = {}
    for name, tensor in sorted(tensors.items()):
        if tensor.layout is not torch.strided or tensor.device.type == "meta":
            msg = f"tensor {name!r} cannot be stored: it is {tensor.layout} on {tensor.device}; expected a dense tensor with data"
            raise CheckpointError(msg)
        identity = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
        if tensor.numel() and identity in names:
            tied[name] = names[identity]
        else:
            names[identity] = name
            kept[name] = tensor
    return kept, tied


def _dtype_name(name: str, tensor: torch.Tensor) -> str:
    if tensor.dtype not in _NAMES:
        msg = f"tensor {name!r} cannot be stored: safetensors has no {tensor.dtype}; expected one of {', '.join(sorted(_DTYPES))}"
        raise CheckpointError(msg)
    return _NAMES[tensor.dtype]


def _bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a tensor; of a copy where it is on another device or not contiguous."""
    dense = tensor.detach().resolve_conj().resolve_neg().to("cpu").contiguous()
    return dense.reshape(-1).view(torch.uint8).numpy().data
