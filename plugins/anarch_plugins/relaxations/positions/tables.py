"""Modules that look numbers up in a table, by an index of pairs of positions."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import attrs
import torch
from torch import nn

from anarch_core.constraint import Incidence


@runtime_checkable
class BiasTable(Protocol):
    """Attention, or a part of it, with a bias per offset between two positions, under the names of Swin."""

    relative_position_bias_table: torch.Tensor | None


@runtime_checkable
class BiasIndex(Protocol):
    """The same; a module that has the index alone makes its bias in another way."""

    relative_position_index: torch.Tensor


@runtime_checkable
class DiagonalMatrix(Protocol):
    """A linear layer whose matrix is ``weight[weight_index]``: one number per diagonal where it is a Toeplitz or circulant matrix."""

    weight: torch.Tensor
    weight_index: torch.Tensor


@attrs.frozen(kw_only=True)
class Table:
    """A parameter of numbers by label, and a buffer of labels by pair.

    Attributes:
        name: of the parameter: [labels, heads] for a bias, [labels] for a matrix.
        index_name: of the buffer: [pairs] or [positions, positions].
        values: the parameter.
        index: the buffer.
    """

    name: str
    index_name: str
    values: nn.Parameter
    index: torch.Tensor

    @property
    def is_matrix(self) -> bool:
        """Whether a dense ``nn.Linear`` takes the module's place."""
        return self.name == "weight"

    @property
    def incidence(self) -> Incidence:
        """The label of every pair. As PyTorch has it, negative numbers count from the end."""
        labels = len(self.values)
        return Incidence.of(self.index.cpu().numpy() % labels, labels)


def table_of(module: nn.Module) -> Table | None:
    """The table of a module; None where it has none, or no index for it."""
    names = (
        ("weight", "weight_index") if isinstance(module, DiagonalMatrix) else ("relative_position_bias_table", "relative_position_index")
    )
    values, index = (getattr(module, name, None) for name in names)
    if not isinstance(values, nn.Parameter) or not isinstance(index, torch.Tensor):
        return None
    return Table(name=names[0], index_name=names[1], values=values, index=index)
