"""A data set as tensors: its parts, limits, and what is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import attrs
import torch

from anarch_core.bounds import shown
from anarch_core.data.order import permutation
from anarch_core.data.statistics import chunks
from anarch_core.data.stored import Inputs, PartName, Stored, taken
from anarch_core.display import Displayed, Overview, Table
from anarch_core.errors import DataError, OutOfMemoryError
from anarch_core.labels import labels_problem
from anarch_core.machine import available_bytes, human_bytes
from anarch_core.objective.base import AbstractObjective
from anarch_core.objective.classification import CrossEntropy


@attrs.frozen(kw_only=True, eq=False, repr=False)
class TensorData(Displayed):
    """A data set and what is to be learnt of it.

    It may be built with :class:`~anarch_core.data.stored.Stored` inputs, which are read a batch at a time: :meth:`inputs` gives them as
    they are held, and ``x_train``, ``x_test`` and ``x_validation`` are whole tensors all the same, read when they are asked for.

    Attributes:
        name: how users call it.
        x_train: inputs, floating point, [n, channels, *spatial], already normalised.
        y_train: targets, [n, ...]; of a classification int64 class numbers, [n].
        x_test: as ``x_train``; only ever reported, never chosen by.
        y_test: as ``y_train``.
        x_validation: a held-out part of the training set, or None.
        y_validation: its targets, or None.
        classes: number of classes; 0 where the targets are none.
        class_names: names for figures, empty when unknown.
        objective: the loss, the scores, and what the targets have to be; classification by cross-entropy unless another is given.
    """

    name: str
    _x_train: Inputs
    y_train: torch.Tensor
    _x_test: Inputs
    y_test: torch.Tensor
    _x_validation: Inputs | None = None
    y_validation: torch.Tensor | None = None
    classes: int = 0
    class_names: Sequence[str] = ()
    objective: AbstractObjective = attrs.field(factory=CrossEntropy)

    @property
    def x_train(self) -> torch.Tensor:
        """Inputs of the training part, [n, channels, *spatial]."""
        return self._whole("x_train", self._x_train)

    @property
    def x_test(self) -> torch.Tensor:
        """Inputs of the test part."""
        return self._whole("x_test", self._x_test)

    @property
    def x_validation(self) -> torch.Tensor | None:
        """Inputs of the validation part, None where there is none."""
        return None if self._x_validation is None else self._whole("x_validation", self._x_validation)

    def inputs(self, part: PartName) -> Inputs:
        """Inputs of a part as they are held: a tensor, or :class:`~anarch_core.data.stored.Stored`, of which a slice is a tensor.

        Raises:
            DataError: there is no validation part.
        """
        found = {"train": self._x_train, "test": self._x_test, "validation": self._x_validation}[part]
        if found is None:
            msg = f"data {self.name!r}: no validation part was held out"
            raise DataError(msg)
        return found

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input, without the batch dimension."""
        return tuple(self._x_train.shape[1:])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of what a network is to give for one sample."""
        return self.objective.output_shape(self.y_train, self.classes)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors that are on the device."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def overview(self) -> Overview:
        """Its parts; shown by ``print`` and by notebooks."""
        rows = [
            [
                name,
                "×".join(map(str, part.shape)),
                str(part.dtype).removeprefix("torch."),
                "read in batches" if isinstance(part, Stored) else str(part.device),
                human_bytes(part.nbytes),
            ]
            for name, part in self._held().items()
        ]
        return Overview(
            title=f"data set {self.name}",
            facts=[("classes", str(self.classes))] if self.classes else [],
            tables=[Table(headings=["part", "shape", "type", "device", "size"], rows=rows)],
        )

    def bytes_to_load(self, device: torch.device) -> int:
        """Bytes that inputs would take in the memory of a device, of those that are not in it."""
        parts = [held for name, held in self._held().items() if name.startswith("x")]
        return sum(part.nbytes for part in parts if isinstance(part, Stored) or part.device.type != device.type)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> TensorData:
        """The same data on another device, in another floating-point type; integers stay what they are."""
        moved: dict[str, Any] = {
            name: held.to(device, dtype if isinstance(held, Stored) or held.is_floating_point() else None)
            for name, held in self._held().items()
        }
        return attrs.evolve(self, **moved)

    def whole(self) -> TensorData:
        """The same data with all inputs on the device."""
        held: dict[str, Any] = {name: self._whole(name, held) for name, held in self._held().items()}
        return attrs.evolve(self, **held)

    def kept_on_host(self) -> TensorData:
        """The same data with no inputs on the device: they are read a batch at a time."""
        given = {name: held for name, held in self.tensors().items() if name.startswith("x")}
        return attrs.evolve(self, **{name: Stored(x.cpu(), device=x.device, dtype=x.dtype) for name, x in given.items()})  # type: ignore[arg-type]

    def limited(self, n: int) -> TensorData:
        """At most ``n`` training samples, the first of each class in turn, so that classes are balanced as far as the data allow.

        Where targets are no class numbers, [n], these are the first samples. A function of ``n`` alone: no seed, original order kept, and a
        smaller limit takes a subset of what a larger one takes.

        Raises:
            DataError: ``n`` is not positive.
        """
        if n < 1:
            msg = f"the number of training samples must be at least 1: {n}"
            raise DataError(msg)
        if n >= len(self.y_train):
            return self
        if not self.classes or labels_problem(self.y_train) is not None:
            return attrs.evolve(self, x_train=taken(self._x_train, slice(n)), y_train=self.y_train[:n])
        by_class = torch.argsort(self.y_train, stable=True)
        counts = torch.bincount(self.y_train, minlength=self.classes)
        starts = counts.cumsum(0) - counts
        rank_in_class = torch.empty_like(by_class)
        rank_in_class[by_class] = torch.arange(len(by_class), device=by_class.device) - starts[self.y_train[by_class]]
        chosen = torch.argsort(rank_in_class, stable=True)[:n].sort().values
        return attrs.evolve(self, x_train=taken(self._x_train, chosen), y_train=self.y_train[chosen])

    def with_validation(self, size: float, seed: int) -> TensorData:
        """Hold out a random part of the training set, of data that have no validation part of their own.

        Args:
            size: number of samples (an int), or their share of the training set (a float between 0 and 1).
            seed: the choice is a function of it.

        Raises:
            DataError: nothing would be held out, or nothing left to train on; or there is a validation part already.
        """
        if self.y_validation is not None:
            msg = f"data {self.name!r} have a validation part of {len(self.y_validation)} samples; leave out --validation, or that part"
            raise DataError(msg)
        total = len(self.y_train)
        count = round(size * total) if isinstance(size, float) else size
        if not 0 < count < total:
            msg = f"validation {size!r} means {count} of {total} training samples; expected 1 to {total - 1}, or a share between 0 and 1"
            raise DataError(msg)
        order = permutation(total, f"validation:{seed}").to(self.y_train.device)
        held, kept = order[:count].sort().values, order[count:].sort().values
        return attrs.evolve(
            self,
            x_train=taken(self._x_train, kept),
            y_train=self.y_train[kept],
            x_validation=taken(self._x_train, held),
            y_validation=self.y_train[held],
        )

    def digest(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all tensors: equal data, equal digest. About a second per gigabyte."""
        state = hashlib.sha256()
        for name, held in self._held().items():
            state.update(f"{name} {held.dtype} {tuple(held.shape)};".encode())
            for tensor in chunks(held) if isinstance(held, Stored) else (held,):
                state.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
        return state.hexdigest()

    def check(self) -> None:
        """Refuse what cannot be trained on, or is not what the objective takes.

        Raises:
            DataError: inputs are not finite floating-point numbers [n, channels, ...], targets are not those of the objective, or the parts
                disagree.
        """
        _check(self)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors by the names of their attributes: of parts that were split off, and are not read a batch at a time."""
        return {name: held for name, held in self._held().items() if isinstance(held, torch.Tensor)}

    def _held(self) -> dict[str, Inputs]:
        """What there is of every part, by the names of its attributes, in this order."""
        held = {
            "x_train": self._x_train,
            "y_train": self.y_train,
            "x_test": self._x_test,
            "y_test": self.y_test,
            "x_validation": self._x_validation,
            "y_validation": self.y_validation,
        }
        return {name: part for name, part in held.items() if part is not None}

    def _whole(self, part: str, inputs: Inputs) -> torch.Tensor:
        if isinstance(inputs, torch.Tensor):
            return inputs
        available = available_bytes(inputs.device)
        if inputs.nbytes > available:
            msg = (
                f"data {self.name!r}: all of {part}, {human_bytes(inputs.nbytes)}, do not fit into the "
                f"{human_bytes(available)} that are free on {inputs.device}; take fewer samples, or read them a batch at a time"
            )
            raise OutOfMemoryError(msg, needed=inputs.nbytes, available=available)
        return inputs.whole()


def _check(data: TensorData) -> None:
    if not isinstance(data.classes, int) or data.classes < 0:
        msg = f"data {data.name!r}: classes = {data.classes!r}, expected a whole number, 0 where targets are no classes"
        raise DataError(msg)
    if ("x_validation" in data._held()) != (data.y_validation is not None):
        msg = f"data {data.name!r}: validation inputs and targets come together or not at all"
        raise DataError(msg)
    names = len(data.class_names) if isinstance(data.class_names, Sequence) else -1
    if names not in (0, data.classes):
        msg = f"data {data.name!r}: class_names {shown(data.class_names)} for {data.classes} classes, expected a name for each, or none"
        raise DataError(msg)
    parts = [("train", data.inputs("train"), data.y_train), ("test", data.inputs("test"), data.y_test)]
    if data.y_validation is not None:
        parts.append(("validation", data.inputs("validation"), data.y_validation))
    for part, x, y in parts:
        problem = _problem(x, y, data)
        if problem is not None:
            msg = f"data {data.name!r}, {part} part: {problem}"
            raise DataError(msg)
    if data not in _FINITE:
        for part, x, _ in parts:
            if not (isinstance(x, Stored) and x.bounded) and not all(bool(chunk.isfinite().all()) for chunk in chunks(x)):
                msg = f"data {data.name!r}, {part} part: some inputs are not finite (nan or infinity)"
                raise DataError(msg)
        _FINITE.add(data)


_FINITE: WeakSet[TensorData] = WeakSet()
"""Data whose inputs were seen to be finite, which takes a second per some gigabytes."""


def _type(x: Inputs) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"


def _problem(x: Inputs, y: torch.Tensor, data: TensorData) -> str | None:
    """What is wrong with one part, but for numbers that are not finite."""
    for tensor in (x.source if isinstance(x, Stored) else x, y):
        if not isinstance(tensor, torch.Tensor) or tensor.layout != torch.strided or tensor.is_meta:
            return f"inputs are a {type(x).__name__} and targets a {type(y).__name__}, expected ordinary tensors, neither sparse nor meta"
    if x.ndim < 2 or not x.dtype.is_floating_point:
        return f"inputs are {_type(x)}, expected floating point [n, channels, ...]"
    if not y.ndim or len(x) != len(y) or len(y) == 0:
        return f"{len(x)} inputs and {len(y) if y.ndim else 'no'} targets, expected equally many and at least one"
    if tuple(x.shape[1:]) != data.input_shape:
        return f"inputs of shape {tuple(x.shape[1:])}, but the training inputs are {data.input_shape}"
    if 0 in x.shape:
        return f"inputs are {_type(x)}, which holds nothing"
    if y.shape[1:] != data.y_train.shape[1:]:
        return f"targets of shape {tuple(y.shape[1:])}, but the training targets are {tuple(data.y_train.shape[1:])}"
    return data.objective.problem(y, data.classes)
