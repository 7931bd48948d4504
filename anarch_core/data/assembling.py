"""A data set of arrays: parts, normalisation and classes, from whatever they were read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch

from anarch_core.data.meaning import Meaning, are_classes, number_of_classes, targets, warn_of_odd_inputs, warn_of_odd_labels
from anarch_core.data.order import permutation
from anarch_core.data.stored import Inputs, Stored
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import DataError

Part = tuple[torch.Tensor, torch.Tensor]
"""Inputs and targets."""


def assembled(
    name: str, parts: Mapping[str, Part], meaning: Meaning, *, class_names: Sequence[str] = (), mapped: bool = False
) -> TensorData:
    """A data set of arrays.

    Integer inputs (8-bit images) are normalised: each channel by mean and deviation of the training part. Floating-point inputs are taken
    to be normalised already. Where there is no test part, a share of the training part becomes one, always the same samples.

    Warns of classes without training samples, and of floating-point inputs far from mean 0 and deviation 1.

    Args:
        name: of the data set.
        parts: ``"train"`` and, where there are such, ``"test"`` and ``"validation"``: inputs of any real numbers and targets, on the CPU.
        meaning: of the arrays.
        class_names: of all classes, if they have any.
        mapped: whether inputs lie in mapped files, from which they are to be read a batch at a time.

    Raises:
        DataError: parts are of different lengths or types, or are not what their meaning says.
    """
    where = meaning.where
    inputs = {part: Stored(meaning.with_channels(_called("x", part), x)) for part, (x, _) in parts.items()}
    labels = {part: targets(f"{where}, {_called('y', part)}", y) for part, (_, y) in parts.items()}
    for part, x in inputs.items():
        if len(x) != len(labels[part]) or (part == "train" and len(x) < 2):
            msg = (
                f"{where}: {_called('x', part)} has {len(x)} samples and {_called('y', part)} {len(labels[part])}, expected equally many"
                f"{' and at least two' if part == 'train' else ''}"
            )
            raise DataError(msg)
    labels = dict(zip(labels, meaning.counted_from_0(list(labels.values())), strict=True))
    if "test" not in parts:
        if meaning.test_fraction is None:
            msg = f"{where}: there is no test part"
            raise DataError(msg)
        train, test = _split(len(labels["train"]), meaning.test_fraction)
        inputs |= {"train": inputs["train"].select(train), "test": inputs["train"].select(test)}
        labels |= {"train": labels["train"][train], "test": labels["train"][test]}
    _require_one_type(where, inputs)
    classes = len(class_names) or number_of_classes(where, list(labels.values()))
    if all(map(are_classes, labels.values())) and min(int(y.min()) for y in labels.values()) >= 0:
        warn_of_odd_labels(where, labels["train"], labels["test"], classes)
    mean, deviation = inputs["train"].statistics()
    if inputs["train"].source.is_floating_point():
        warn_of_odd_inputs(where, mean, deviation)
        final: dict[str, Inputs] = {part: x if mapped else x.loaded().float() for part, x in inputs.items()}
    else:
        final = {part: attrs.evolve(x, mean=mean, deviation=deviation) for part, x in inputs.items()}
    return TensorData(
        name=name,
        x_train=final["train"],
        y_train=labels["train"],
        x_test=final["test"],
        y_test=labels["test"],
        x_validation=final.get("validation"),
        y_validation=labels.get("validation"),
        classes=classes,
        class_names=tuple(class_names),
    )


def _called(array: str, part: str) -> str:
    return array if part == "train" else f"{array}_{part}"


def _split(samples: int, fraction: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Numbers of the training and of the test samples."""
    order = permutation(samples, "test")
    count = min(max(round(fraction * samples), 1), samples - 1)
    return order[count:].sort().values, order[:count].sort().values


def _require_one_type(where: str, inputs: Mapping[str, Stored]) -> None:
    """Refuse parts of different types, which would be scaled differently."""
    first = inputs["train"].source
    for part, x in inputs.items():
        both_float = x.source.is_floating_point() and first.is_floating_point()
        if x.source.dtype != first.dtype and not both_float:
            msg = f"{where}: x is {first.dtype} and x_{part} {x.source.dtype}; expected the same type, so that they are scaled alike"
            raise DataError(msg)
