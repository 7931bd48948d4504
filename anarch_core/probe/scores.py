"""Scores of a network as probes tell them: on which data they are taken, what they are called, and in which units they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch

from anarch_core.errors import ProbeError
from anarch_core.objective.base import AbstractObjective

if TYPE_CHECKING:
    from anarch_core.data.stored import Inputs
    from anarch_core.data.tensor_data import TensorData


def chosen_data(data: TensorData, part: Literal["train", "test", "validation"], probe: str) -> tuple[Inputs, torch.Tensor]:
    """Inputs and targets of a part of a data set.

    Args:
        data: the data set.
        part: of it.
        probe: that needs them, for messages.

    Raises:
        ProbeError: the data set has no such part.
    """
    y = getattr(data, f"y_{part}")
    if y is None:
        msg = f"the probe {probe} needs {part} data, and the data set {data.name!r} has none"
        raise ProbeError(msg)
    return data.inputs(part), y


def named_scores(name: str, loss: float, metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Scalars of what a network scored: ``accuracy_<name>`` and the like, then ``loss_<name>``; None for what is not finite."""
    return {**{f"{metric}_{name}": finite(value) for metric, value in metrics.items()}, f"loss_{name}": finite(loss)}


def score_unit(scalar: str, objective: AbstractObjective) -> str:
    """Unit of a scalar of :func:`named_scores`."""
    units = {f"{metric.name}_": metric.unit for metric in objective.metrics}
    return next((unit for prefix, unit in units.items() if scalar.startswith(prefix)), objective.loss_unit)


def finite(value: float) -> float | None:
    """A number as results hold it: None where it is not finite."""
    return value if math.isfinite(value) else None
