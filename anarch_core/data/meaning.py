"""What the axes of inputs and the numbers of targets mean, and whether that can be what was meant."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import attrs
import torch

from anarch_core.errors import DataError
from anarch_core.labels import described

Layout = Literal["channels-first", "channels-last", "no-channels"]

CHANNELS = 4
"""Channels that images have at most: red, green, blue, and transparency."""

SMALLEST = 8
"""Pixels or samples of a side, fewer of which may well be channels."""

FAR = 20.0
"""Mean or deviation of a channel in a unit in which both should be about 0 and 1."""


@attrs.frozen(kw_only=True)
class Meaning:
    """How arrays are to be read.

    Attributes:
        where: how messages call what they come from.
        flag: what flags that say so begin with, ``"--tensors-"``; empty where there are none.
        layout: what the axes of inputs are; channels first if None, unless that does not look so.
        first_label: the number of the first class; 0 if None, unless no label is 0.
        test_fraction: share of the samples to test on where no test part is given.
        features: whether inputs may also be [n, features].
    """

    where: str
    flag: str = ""
    layout: Layout | None = None
    first_label: Literal[0, 1] | None = None
    test_fraction: float | None = None
    features: bool = False

    @classmethod
    def of(cls, where: str, flag: str, options: Any) -> Meaning:
        """What the options of a data set say: its ``layout``, ``first_label`` and ``test_fraction``."""
        return cls(where=where, flag=flag, layout=options.layout, first_label=options.first_label, test_fraction=options.test_fraction)

    def with_channels(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Inputs as [n, channels, *spatial], a view.

        Args:
            name: how messages call the array.
            x: any numbers.

        Raises:
            DataError: there are too few axes, an axis has no entries, these are no real numbers, or nobody says what the axes are and they
                look like another layout.
        """
        given = f"{self.where}: {name} is {x.dtype} {tuple(x.shape)}"
        axes = 2 if self.layout == "no-channels" or self.features else 3
        if x.ndim < axes or x.is_complex() or x.dtype == torch.bool or 0 in x.shape:
            expected = "[n, length] or [n, h, w]" if self.layout == "no-channels" else "[n, channels, length] or [n, channels, h, w]"
            hint = "; where there is no axis of channels, say so by layout = 'no-channels'" if x.ndim == 2 and self.flag else ""
            msg = f"{given}, expected integers or floats {expected}{hint}"
            raise DataError(msg)
        looks = _looks(x) if self.layout is None else None
        if looks is not None:
            read, other = "…" if x.ndim > 3 else "length", "no-channels" if "without" in looks else "channels-last"
            advice = (
                f"say what it is: {self.flag}layout {other}, or channels-first"
                if self.flag
                else "give [n, channels, ...], or a TensorData, which is taken as it is"
            )
            msg = f"{given}, which looks like {looks}, but is read as [n, channels, {read}]; {advice}"
            raise DataError(msg)
        if self.layout == "channels-last":
            return x.movedim(-1, 1)
        return x.unsqueeze(1) if self.layout == "no-channels" else x

    def counted_from_0(self, labels: list[torch.Tensor]) -> list[torch.Tensor]:
        """Class numbers of all parts, int64 [n], counted from 0; other targets as they are.

        Raises:
            DataError: nobody says what the first class is, and no label is 0.
        """
        if not all(map(are_classes, labels)):
            return labels
        least, most = min(int(part.min()) for part in labels), max(int(part.max()) for part in labels)
        if self.first_label is None and least == 1:
            advice = f"say which the first class is: {self.flag}first-label 1, or 0" if self.flag else "subtract 1"
            msg = f"{self.where}: labels go from 1 to {most} and none is 0, as if they were counted from 1; {advice}"
            raise DataError(msg)
        return [part - (self.first_label or 0) for part in labels]


def _looks(x: torch.Tensor) -> str | None:
    """What inputs look like that do not have their channels first."""
    if x.ndim < 3:
        return None
    first, last = x.shape[1], x.shape[-1]
    if last <= CHANNELS < SMALLEST <= first:
        return "channels that come last"
    if x.ndim == 3 and first >= SMALLEST and (first == last or x.dtype == torch.uint8):
        return "images without an axis of channels"
    return None


def targets(where: str, y: torch.Tensor) -> torch.Tensor:
    """Targets of any objective: whole numbers as int64, others as float32, rows of truth values as 0 and 1.

    Raises:
        DataError: there are none, or they are no real numbers.
    """
    if y.ndim == 0 or 0 in y.shape or y.is_complex():
        msg = f"{where}: {'there are no labels' if 0 in y.shape else f'targets are {described(y)}, expected real numbers, [n, ...]'}"
        raise DataError(msg)
    if y.is_floating_point() or (y.dtype == torch.bool and y.ndim > 1):
        return y.float()
    return y if y.dtype == torch.bool else y.long()


def are_classes(y: torch.Tensor) -> bool:
    """Whether targets may be class numbers: int64 [n]."""
    return y.dtype == torch.int64 and y.ndim == 1


def number_of_classes(where: str, parts: list[torch.Tensor]) -> int:
    """One more than the largest label; 0 where targets are no whole numbers.

    Raises:
        DataError: there are more classes than samples.
    """
    if any(part.dtype != torch.int64 for part in parts):
        return 0
    classes, samples = max(int(part.max()) for part in parts) + 1, sum(map(len, parts))
    if classes > samples and all(map(are_classes, parts)):
        msg = f"{where}: the largest label is {classes - 1}, with only {samples} samples; labels are class numbers from 0"
        raise DataError(msg)
    return max(classes, 0)


def warn_of_odd_labels(where: str, y: torch.Tensor, y_test: torch.Tensor, classes: int) -> None:
    """Warn of classes that nobody can learn or that are not tested.

    Args:
        where: how messages call the data.
        y: training labels, int64 [n].
        y_test: those of the test part.
        classes: how many there are.
    """
    learnt = set(y.tolist())
    unlearnt, unused = sorted(set(y_test.tolist()) - learnt), sorted(set(range(classes)) - learnt)
    if unlearnt:
        _warn(f"{where}: the test part has classes of which the training part has no sample: {_some(unlearnt)}")
    elif unused:
        _warn(f"{where}: of {classes} classes, {len(unused)} without training samples: {_some(unused)}")


def warn_of_odd_inputs(where: str, mean: torch.Tensor, deviation: torch.Tensor) -> None:
    """Warn of floating-point inputs, taken as they are, whose channels, [channels], are far from mean 0 and deviation 1."""
    average = float(mean.mean())
    spread = float((deviation.square() + (mean - average).square()).mean().sqrt())
    if max(abs(average), spread) > FAR:
        _warn(
            f"{where}: x is floating point and taken as it is, but has mean {average:.3g} and deviation {spread:.3g}; networks are trained "
            "on inputs of about 0 and 1 (integers, as of 8-bit images, are normalised)"
        )


def _some(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:10])) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")


def _warn(message: str) -> None:
    warnings.warn(message, UserWarning, stacklevel=5)
