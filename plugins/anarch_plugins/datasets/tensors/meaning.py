"""What the axes of inputs and the numbers of labels mean, and whether that can be what was meant."""

from __future__ import annotations

import warnings
from typing import Literal

import torch

from anarch_core.data import labels_problem
from anarch_core.errors import DataError

Layout = Literal["channels-first", "channels-last", "no-channels"]

CHANNELS = 4
"""Channels that images have at most: red, green, blue, and transparency."""

SMALLEST = 8
"""Pixels or samples of a side, fewer of which may well be channels."""

FAR = 20.0
"""Mean or deviation of a channel in a unit in which both should be about 0 and 1."""


def with_channels(where: str, x: torch.Tensor, layout: Layout | None) -> torch.Tensor:
    """Inputs as [n, channels, *spatial].

    Args:
        where: how messages call the tensor.
        x: any numbers.
        layout: what the axes are; channels first if None, unless that does not look so.

    Raises:
        DataError: there are too few axes, an axis has no entries, these are no real numbers, or nobody says what the axes are and they look
            like another layout.
    """
    axes = 2 if layout == "no-channels" else 3
    if x.ndim < axes or x.is_complex() or x.dtype == torch.bool or 0 in x.shape:
        expected = "[n, length] or [n, h, w]" if layout == "no-channels" else "[n, channels, length] or [n, channels, h, w]"
        hint = "; where there is no axis of channels, say so by layout = 'no-channels'" if x.ndim == 2 and layout is None else ""
        msg = f"{where} is {x.dtype} {tuple(x.shape)}, expected integers or floats {expected}{hint}"
        raise DataError(msg)
    looks = _looks(x) if layout is None else None
    if looks is not None:
        read, other = "…" if x.ndim > 3 else "length", "no-channels" if "without" in looks else "channels-last"
        msg = (
            f"{where} is {x.dtype} {tuple(x.shape)}, which looks like {looks}, but is read as [n, channels, {read}]; say what it is: "
            f"--tensors-layout {other}, or channels-first"
        )
        raise DataError(msg)
    if layout == "channels-last":
        return x.movedim(-1, 1).contiguous()
    return x.unsqueeze(1) if layout == "no-channels" else x


def _looks(x: torch.Tensor) -> str | None:
    """What inputs look like that do not have their channels first."""
    first, last = x.shape[1], x.shape[-1]
    if last <= CHANNELS < SMALLEST <= first:
        return "channels that come last"
    if x.ndim == 3 and first >= SMALLEST and (first == last or x.dtype == torch.uint8):
        return "images without an axis of channels"
    return None


def class_numbers(where: str, y: torch.Tensor) -> torch.Tensor:
    """Labels as int64 [n].

    Raises:
        DataError: they are no whole numbers, one for each sample.
    """
    whole = y.ndim == 1 and not (y.is_floating_point() or y.is_complex() or y.dtype == torch.bool)
    if not whole or not len(y):
        msg = f"{where}: {labels_problem(y) or 'there are no labels'}"
        raise DataError(msg)
    return y.long()


def counted_from_0(where: str, labels: list[torch.Tensor], first: Literal[0, 1] | None) -> list[torch.Tensor]:
    """Labels of all parts, counted from 0.

    Args:
        where: how messages call the file.
        labels: int64 [n] of each part.
        first: the number of the first class; 0 if None, unless no label is 0.

    Raises:
        DataError: nobody says what the first class is, and no label is 0.
    """
    least, most = min(int(part.min()) for part in labels), max(int(part.max()) for part in labels)
    if first is None and least == 1:
        msg = (
            f"{where}: labels go from 1 to {most} and none is 0, as if they were counted from 1; say which the first class is: "
            "--tensors-first-label 1, or 0"
        )
        raise DataError(msg)
    return [part - (first or 0) for part in labels]


def warn_of_odd(where: str, x: torch.Tensor, y: torch.Tensor, y_test: torch.Tensor, classes: int) -> None:
    """Warn of classes that nobody can learn or that are not tested, and of inputs far from mean 0 and deviation 1.

    Args:
        where: how messages call the file.
        x: training inputs, as they are trained on.
        y: their labels.
        y_test: those of the test part.
        classes: how many there are.
    """
    learnt = set(y.tolist())
    unlearnt, unused = sorted(set(y_test.tolist()) - learnt), sorted(set(range(classes)) - learnt)
    if unlearnt:
        _warn(f"{where}: the test part has classes of which the training part has no sample: {_some(unlearnt)}")
    elif unused:
        _warn(f"{where}: of {classes} classes, {len(unused)} without training samples: {_some(unused)}")
    mean, deviation = float(x.double().mean()), float(x.double().std(correction=0))
    if max(abs(mean), deviation) > FAR:
        _warn(
            f"{where}: x is floating point and taken as it is, but has mean {mean:.3g} and deviation {deviation:.3g}; networks are trained "
            "on inputs of about 0 and 1 (integers, as of 8-bit images, are normalised)"
        )


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=4)
