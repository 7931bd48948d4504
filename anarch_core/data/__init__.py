"""Data sets as tensors: loading one by its name, normalising inputs, orders of samples. A door for authors of data sets."""

from __future__ import annotations

from anarch_core.data.assembling import assembled
from anarch_core.data.gathering import gathered
from anarch_core.data.loading import load_data
from anarch_core.data.meaning import Meaning
from anarch_core.data.order import permutation
from anarch_core.data.statistics import channel_statistics, normalised
from anarch_core.data.stored import Inputs, Stored
from anarch_core.data.tensor_data import TensorData
from anarch_core.labels import labels_problem

__all__ = [
    "Inputs",
    "Meaning",
    "Stored",
    "TensorData",
    "assembled",
    "channel_statistics",
    "gathered",
    "labels_problem",
    "load_data",
    "normalised",
    "permutation",
]
