"""A map-style data set, sample by sample, as two tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from anarch_core.errors import DataError, one_line
from anarch_core.labels import described

INPUTS = ("x", "image", "images", "img", "input", "inputs", "pixel_values", "signal", "data")
TARGETS = ("y", "label", "labels", "target", "targets", "fine_label", "class", "annotation", "mask")
"""Usual keys, in this order."""

Array = npt.NDArray[Any]

READ_TWICE = 16
"""Samples that are read twice, to see whether they are random."""


def collected(where: str, dataset: Any, x: str | None, y: str | None) -> tuple[torch.Tensor, torch.Tensor]:
    """All samples.

    Args:
        where: how messages call the part.
        dataset: ``len()`` of it and ``[i]``.
        x: key of inputs, None for a usual one.
        y: likewise, of targets.

    Returns:
        inputs [n, *shape of one] and targets [n, ...], of the type that the first sample has.

    Raises:
        DataError: a sample cannot be read, is no input and target, is unlike the first one, or is another one when it is read again.
    """
    count = len(dataset)
    if not count:
        msg = f"{where} has no samples"
        raise DataError(msg)
    read = _Reader(where, dataset, x, y)
    again = {round(step * (count - 1) / (READ_TWICE - 1)) for step in range(READ_TWICE)}
    results: list[torch.Tensor] = []
    for index in range(count):
        sample = read(index)
        if not results:
            results = [torch.empty(count, *value.shape, dtype=value.dtype) for value in sample]
        for what, value, result in zip(("input", "target"), sample, results, strict=True):
            if value.shape != result.shape[1:] or value.dtype != result.dtype:
                others = f"{str(result.dtype).removeprefix('torch.')} {tuple(result.shape[1:])}"
                msg = f"{where}, sample {index}: the {what} is {described(value)}, that of sample 0 {others}; make all of them alike"
                raise DataError(msg)
            result[index] = value
        if index in again and not all(map(_same, sample, read(index))):
            msg = (
                f"{where}, sample {index}, is another one when it is read again, as by random transforms; data are read once, so take them "
                "away: --augment crop,flip changes samples anew in every epoch"
            )
            raise DataError(msg)
    return results[0], results[1]


def names_of_classes(dataset: Any, y: str | None) -> tuple[str, ...]:
    """The names of the classes, where the data set has them: ``classes``, as of torchvision, or a feature of Hugging Face datasets."""
    features = getattr(dataset, "features", None)
    if isinstance(features, Mapping):
        names = getattr(features.get(_key(features, TARGETS, y) or ""), "names", None)
    else:
        while hasattr(dataset, "dataset") and not hasattr(dataset, "classes"):
            dataset = dataset.dataset  # a subset
        names = getattr(dataset, "classes", None)
    usable = isinstance(names, Sequence) and not isinstance(names, str) and all(isinstance(name, str) for name in names)
    return tuple(names) if usable and names is not None else ()


class _Reader:
    """Reads samples as pairs of tensors."""

    def __init__(self, where: str, dataset: Any, x: str | None, y: str | None) -> None:
        self.where, self.dataset, self.x, self.y = where, dataset, x, y

    def __call__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        try:
            sample = self.dataset[index]
        except Exception as error:  # the data set may be anybody's
            msg = f"{self.where}, sample {index} cannot be read: {one_line(error)}"
            raise DataError(msg) from error
        given, target = self._pair(sample, index)
        return self._tensor(given, "input", index), self._tensor(target, "target", index)

    def _pair(self, sample: Any, index: int) -> tuple[Any, Any]:
        if isinstance(sample, Mapping):
            keys = _key(sample, INPUTS, self.x), _key(sample, TARGETS, self.y)
            if keys[0] in sample and keys[1] in sample:
                return sample[keys[0]], sample[keys[1]]
            msg = (
                f"{self.where}, sample {index} has {', '.join(map(str, sample))}; expected an input, such as {', '.join(INPUTS[:4])}, and "
                f"a target, such as {', '.join(TARGETS[:4])}"
            )
            raise DataError(msg)
        if isinstance(sample, (tuple, list)) and len(sample) == 2:
            return sample[0], sample[1]
        length = f" of {len(sample)}" if isinstance(sample, (tuple, list)) else ""
        msg = f"{self.where}, sample {index} is a {type(sample).__name__}{length}, expected (x, y), or a dict"
        raise DataError(msg)

    def _tensor(self, value: Any, what: str, index: int) -> torch.Tensor:
        if type(value).__module__.partition(".")[0] == "PIL":
            return _picture(value)
        if isinstance(value, torch.Tensor):
            return value.detach().cpu()
        try:
            return _copied(np.asarray(value))
        except (TypeError, ValueError) as error:
            msg = f"{self.where}, sample {index}: the {what} is a {type(value).__name__}, expected numbers or an image; {one_line(error)}"
            raise DataError(msg) from error


def _picture(image: Any) -> torch.Tensor:
    """An image of Pillow, [channels, height, width]: colours and greys of 8 bits as they are, others converted to colours."""
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode not in ("L", "RGB", "I;16", "I", "F"):
        image = image.convert("RGB")
    pixels = _copied(np.asarray(image))
    return pixels.movedim(-1, 0) if pixels.ndim == 3 else pixels.unsqueeze(0)


def _copied(array: Array) -> torch.Tensor:
    """An array as a tensor of its own; 16 bits without a sign, in which tensors do not count, as 32."""
    return torch.as_tensor(array.astype(np.int32) if array.dtype == np.uint16 else array.copy())


def _key(keys: Mapping[str, Any], usual: Sequence[str], given: str | None) -> str | None:
    return given if given is not None else next((key for key in usual if key in keys), None)


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(torch.nan_to_num(one.double()), torch.nan_to_num(other.double()))
