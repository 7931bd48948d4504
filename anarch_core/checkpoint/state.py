"""Named tensors and string metadata on disk: model weights, optimizer and generator state, a probe's results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

import torch

from anarch_core.checkpoint.file import read_data, write_file
from anarch_core.checkpoint.header import Header, TensorEntry, layout
from anarch_core.checkpoint.parts import cut_of, gathered, give, held, picked
from anarch_core.checkpoint.schema import CORE_VERSION, SCHEMA, SCHEMA_KEY, TIED
from anarch_core.errors import CheckpointError
from anarch_core.files.tables import canonical_json
from anarch_core.sharding.cut import Cut
from anarch_core.sharding.shards import Shards
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


def save_state(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
    *,
    cuts: Mapping[str, Cut] | None = None,
    shards: Shards | None = None,
) -> None:
    """Write tensors and metadata to a safetensors file: atomically, equal content giving equal bytes.

    Tensors are written straight from their memory, any device, any strides; only one that is not contiguous on the CPU is copied, alone.
    Names that share one tensor are written once and listed under ``anarch.tied``; :func:`load_state` ties them again.

    Args:
        path: the file; replaced if it exists.
        tensors: by name; any dense dtype of safetensors, scalars and empty ones included.
        metadata: strings by key. ``format``, ``anarch.schema``, ``anarch.core_version``, ``anarch.tied`` and the digests are set here, so
            that the metadata of a loaded file can be passed on as it is.
        cuts: by name, of the tensors of which this process holds a part. A cut holds also for the tensors below its name that have the
            shape of its part, as ``optimizer.3`` for ``optimizer.3.momentum_buffer``; other names are passed over.
        shards: the processes that hold the parts. All of them call this in step, with the same names, and leave together; the first writes
            the file, which has the bytes that one process would write. New in 1.3.

    Raises:
        CheckpointError: a tensor cannot be stored, a metadata value is not a string, or the file cannot be written; in every process.
        LostProcessError: another process is gone.
    """
    found = held(cuts or {}, tensors)
    if found and shards is None:
        msg = f"this process holds a part of {next(iter(found))!r}; pass shards=, the processes that hold the rest"
        raise CheckpointError(msg)
    kept, tied = _resolve_ties(tensors, found)
    shapes = {name: found[name].shape if name in found else tuple(tensor.shape) for name, tensor in kept.items()}
    entries = layout({name: (_dtype_name(name, tensor), shapes[name]) for name, tensor in kept.items()})
    strings = {key: text for key, text in (metadata or {}).items() if key != TIED}
    for key, text in strings.items():
        if not isinstance(text, str):
            msg = f"metadata {key!r} must be a string, got {type(text).__name__}; encode it as JSON"
            raise CheckpointError(msg)
    strings |= {"format": "pt", SCHEMA_KEY: "{}.{}".format(*SCHEMA), CORE_VERSION: __version__}
    if tied:
        strings[TIED] = canonical_json(tied)
    if shards is None:
        write_file(Path(path), entries, strings, lambda name: [_bytes_of(kept[name])])
    else:
        _write_together(Path(path), entries, strings, kept, found, shards)


def _write_together(
    path: Path,
    entries: Mapping[str, TensorEntry],
    metadata: Mapping[str, str],
    tensors: Mapping[str, torch.Tensor],
    cuts: Mapping[str, Cut],
    shards: Shards,
) -> None:
    """Let the first process write what all hold; the others learn from it whether it could.

    Raises:
        CheckpointError: it could not; in every process.
    """
    shared = [name for name in entries if name in cuts]
    failed: CheckpointError | None = None
    if shards.leads:
        pieces = {name: gathered(tensors[name], cuts[name], shards) for name in shared}
        try:
            write_file(path, entries, metadata, lambda name: pieces[name] if name in pieces else [_bytes_of(tensors[name])])
        except CheckpointError as error:
            failed = error
            for _ in chain.from_iterable(pieces.values()):
                pass  # the others come to their end by giving all
    else:
        for name in shared:
            give(tensors[name], cuts[name], shards)
    said = shards.agreed(None if failed is None else str(failed))
    if said is not None:
        raise CheckpointError(said) from failed


def load_state(path: str | Path, *, cuts: Mapping[str, Cut] | None = None) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read what :func:`save_state` wrote; both digests are verified.

    Args:
        path: the file.
        cuts: by name, of the tensors of which a part is read, see :func:`read_tensors`. New in 1.3.

    Returns:
        tensors on the CPU by name, and all metadata.

    Raises:
        CheckpointError: the file is missing, truncated, altered, of another schema, or not written by anarch; or a tensor has another
            shape than the whole that this process holds a part of.
    """
    tensors, header = read_tensors(path, cuts=cuts)
    if not header.ours:
        msg = f"{path} is a safetensors file, but was not written by anarch: it has no metadata of the schema"
        raise CheckpointError(msg)
    return tensors, dict(header.metadata)


def read_tensors(
    path: str | Path, *, cuts: Mapping[str, Cut] | None = None, into: Mapping[str, torch.Tensor] | None = None
) -> tuple[dict[str, torch.Tensor], Header]:
    """Read any safetensors file; digests are verified where it has them.

    Args:
        path: the file.
        cuts: by name, of the tensors of which a part is read, whoever wrote them; there is never room for the whole. As in
            :func:`save_state`, a cut holds also for the tensors below its name, here those that have the shape of its whole.
        into: by name, tensors whose memory is filled where they have the shape and the dtype that are read; contiguous, on the CPU. Others
            are made.

    Returns:
        tensors on the CPU by name, and the header.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, altered or of another schema; or a tensor has another shape than its cut.
    """
    path = Path(path)
    tensors: dict[str, torch.Tensor] = {}

    def places(name: str, entry: TensorEntry) -> Iterable[memoryview]:
        cut, dtype = _cut_of(cuts or {}, name, entry, path), torch_dtype(name, entry, path)
        shape, tensor = entry.shape if cut is None else cut.part_shape, (into or {}).get(name)
        if tensor is None or (tensor.shape, tensor.dtype) != (shape, dtype):
            tensor = torch.empty(shape, dtype=dtype, device="cpu")
        tensors[name] = tensor
        return [_bytes_of(tensor)] if cut is None else picked(tensor, cut)

    header = read_data(path, places)
    tied = (header.table(TIED) if header.ours else None) or {}
    if not isinstance(tied, dict) or not all(isinstance(kept, str) and kept in tensors for kept in tied.values()):
        msg = f"{path} ties names to tensors that it does not hold: {header.metadata[TIED]:.80}"
        raise CheckpointError(msg)
    tensors |= {dropped: tensors[kept] for dropped, kept in tied.items()}
    return dict(sorted(tensors.items())), header


def torch_dtype(name: str, entry: TensorEntry, path: Path) -> torch.dtype:
    """The dtype of a tensor in a file.

    Raises:
        CheckpointError: PyTorch has none.
    """
    if entry.dtype not in _DTYPES:
        msg = f"{path} has a tensor {name!r:.80} of type {entry.dtype}, which is not supported; expected one of {', '.join(_DTYPES)}"
        raise CheckpointError(msg)
    return _DTYPES[entry.dtype]


def _cut_of(cuts: Mapping[str, Cut], name: str, entry: TensorEntry, path: Path) -> Cut | None:
    cut = cut_of(cuts, name)
    if cut is None or cut.shape == entry.shape:
        return cut
    if name in cuts:
        msg = f"{path} has {name!r:.80} of shape {entry.shape}, expected {cut.shape}; it is of another network"
        raise CheckpointError(msg)
    return None


def _resolve_ties(tensors: Mapping[str, torch.Tensor], cuts: Mapping[str, Cut]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    kept: dict[str, torch.Tensor] = {}
    tied: dict[str, str] = {}
    names: dict[object, str] = {}
    for name, tensor in sorted(tensors.items()):
        if tensor.layout is not torch.strided or tensor.device.type == "meta":
            msg = f"tensor {name!r} cannot be stored: it is {tensor.layout} on {tensor.device}; expected a dense tensor with data"
            raise CheckpointError(msg)
        memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
        identity = (*memory, cuts.get(name))
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
