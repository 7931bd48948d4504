"""Data as people have them: tensors, arrays, map-style data sets and mappings of parts, gathered into one data set of tensors."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from anarch_core.data.assembling import Part, assembled
from anarch_core.data.meaning import Meaning
from anarch_core.data.samples import collected, names_of_classes
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import DataError

PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
}
"""What parts are called, and which ones they are."""

_EXPECTED = "a TensorData, or (train, test), (train, validation, test) or a mapping of these, each (x, y) or a map-style data set"


def gathered(
    name: str, given: object, *, meaning: Meaning | None = None, x: str | None = None, y: str | None = None, parts: Sequence[str] = ()
) -> TensorData:
    """One data set of tensors.

    Parts are given as a pair or a triple, ``(train, test)`` or ``(train, validation, test)``, or by name. Each is ``(x, y)``, arrays or
    tensors of as many inputs and targets; or a map-style data set (``len()`` and ``[i]``), whose samples are ``(x, y)`` or dicts. Inputs
    are [channels, *spatial] or images of Pillow; 8-bit ones are normalised by the training part, see
    :func:`~anarch_core.data.assembling.assembled`. The random state is left as it was.

    Args:
        name: of the data set.
        given: the parts; a TensorData is taken as it is.
        meaning: of the arrays; nothing special if None.
        x: where samples are dicts, the key of inputs; found among usual ones if None.
        y: likewise, of targets.
        parts: names of the training and the test part in a mapping, where they are other ones than usual.

    Raises:
        DataError: it is something else, or a sample is unlike the others; the message has its index.
    """
    if isinstance(given, TensorData):
        return given
    meaning = meaning or Meaning(where=f"data {name!r}", features=True)
    with _random_state_kept():
        gathered: dict[str, Part] = {}
        class_names: Sequence[str] = ()
        mapped = False
        for part, content in _parts(name, given, parts, meaning.test_fraction).items():
            where = f"{meaning.where}, {part} part"
            pair = _pair(content)
            if pair is None and not _is_map_style(content):
                msg = f"{where} is {_described(content)}, expected (x, y), as many inputs as targets, or a map-style data set"
                raise DataError(msg)
            if pair is None:
                gathered[part] = collected(where, content, x, y)
                class_names = class_names or names_of_classes(content, y)
            else:
                mapped = mapped or any(_is_mapped(array) for array in pair)
                gathered[part] = as_tensor(f"{where}, x", pair[0]), as_tensor(f"{where}, y", pair[1])
    return assembled(name, gathered, meaning, class_names=class_names, mapped=mapped)


def as_tensor(where: str, array: Any) -> torch.Tensor:
    """An array as a tensor on the CPU, without a copy where there need be none.

    Raises:
        DataError: it holds no numbers.
    """
    if isinstance(array, torch.Tensor):
        return array.detach().cpu()
    found = np.asarray(array) if not isinstance(array, np.ndarray) else array
    if found.dtype.kind not in "biuf":
        msg = f"{where} holds {found.dtype}, expected numbers"
        raise DataError(msg)
    if found.dtype in (np.uint16, np.uint32):
        found = found.astype(np.int32 if found.dtype == np.uint16 else np.int64)
    if not found.dtype.isnative or any(stride < 0 for stride in found.strides) or found.dtype.itemsize > 8:
        found = found.astype(found.dtype.newbyteorder("=") if found.dtype.itemsize <= 8 else np.float64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nobody writes to inputs
        return torch.from_numpy(found)


def _parts(name: str, given: object, wanted: Sequence[str], test_fraction: float | None) -> dict[str, object]:
    """The parts by the names that they have here."""
    if isinstance(given, (tuple, list)) and len(given) in (2, 3) and not _is_array(given[0]):
        names = ("train", "test") if len(given) == 2 else ("train", "validation", "test")
        return dict(zip(names, given, strict=True))
    if isinstance(given, Mapping):
        known = dict(zip(wanted, ("train", "test"), strict=False)) if wanted else PARTS
        found: dict[str, object] = {}
        for key, content in given.items():
            if (part := known.get(key)) is not None:
                if part in found:
                    msg = f"data {name!r}: {part} is given twice, under {', '.join(repr(key) for key in given if known.get(key) == part)}"
                    raise DataError(msg)
                found[part] = content
        missing = [part for part in ("train", "test") if part not in found and not (part == "test" and test_fraction)]
        if not missing:
            return found
        msg = f"data {name!r}: there is no part {' and no '.join(map(repr, missing))} among {', '.join(map(repr, given)) or 'none'}"
        raise DataError(msg)
    what = _described(given)
    if isinstance(given, (tuple, list)) and given and _is_array(given[0]):
        what = f"{what}, as of one part"
    msg = f"data {name!r}: got {what}, expected {_EXPECTED}"
    raise DataError(msg)


def _pair(content: object) -> tuple[Any, Any] | None:
    """``(x, y)``, if that is what a part is."""
    if isinstance(content, (tuple, list)) and len(content) == 2 and _is_array(content[0]):
        return content[0], content[1]
    return None


def _is_array(given: object) -> bool:
    return isinstance(given, (torch.Tensor, np.ndarray)) or (hasattr(given, "__array__") and hasattr(given, "shape"))


def _is_map_style(given: object) -> bool:
    return (
        hasattr(given, "__getitem__") and hasattr(given, "__len__") and not (_is_array(given) or isinstance(given, (str, bytes, Mapping)))
    )


def _is_mapped(array: object) -> bool:
    """Whether an array lies in a mapped file, or is a view of one that does."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def _described(given: object) -> str:
    length = f" of {len(given)}" if isinstance(given, (tuple, list)) else ""
    shape = f" {tuple(given.shape)}" if _is_array(given) else ""  # type: ignore[attr-defined]
    return f"a {type(given).__name__}{length}{shape}"


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Leave the random states of PyTorch on the CPU, of NumPy and of Python as they were."""
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
