"""The lattice of constraints between a convolution and a fully connected layer, and the exact maps along its edges.

A *family* says which entries of the dense matrix from inputs to outputs may be non-zero and which of them are equal: on every axis it
gives each (position, pixel) pair at most a few *labels*, and pairs with one label share one weight. With A the incidence matrix of pairs
and labels, a layer with parameters θ is the dense matrix W = A θ (times the channels, which no family mixes). So for a family F inside a
family G

* the lift is ``A_G⁺ A_F`` (exact: A_G times it gives A_F back, which is what being inside means),
* the orthogonal projection is ``A_F⁺ A_G``, nearest in the norm of the dense matrix.

All of it is a Kronecker product over the axes, kept sparse and per axis until it is applied.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod

import attrs
import numpy as np
from numpy.typing import NDArray

from anarch_core.constraint import incidence as constraint
from anarch_core.constraint.incidence import NOTHING, Index
from anarch_core.lattice.geometry import Axis, ConvGeometry


class Incidence(constraint.Incidence):
    """Which labels each entry of one axis has, where an entry is a pair of a position and a pixel: position * pixels + pixel."""

    @property
    def pair(self) -> Index:
        """The entry of each (pair, label) there is."""
        return self.entry

    @property
    def pairs(self) -> int:
        """How many pairs there are: positions * pixels."""
        return self.entries


class AbstractFamily(ABC):
    """A set of layers between convolutions and fully connected layers.

    Families compare by what they are, so subclasses are frozen attrs classes.

    Attributes:
        name: for messages.
        local: no weight lies outside the receptive field.
        dense: every entry of the dense matrix is a weight of its own, so the labels of an axis are its (position, pixel) pairs in order.
        across_groups: input and output channels of different groups are connected.
    """

    name: str
    local: bool
    dense: bool = False
    across_groups: bool = False

    @abstractmethod
    def incidence(self, axis: Axis) -> Incidence:
        """Labels of the weights along one axis."""

    @abstractmethod
    def bias_labels(self, axis: Axis) -> Index:
        """Label of the bias of each position along one axis, [positions]; labels count from 0."""


@attrs.frozen
class Convolutional(AbstractFamily):
    """Local and shared: the labels are the taps."""

    name: str = "conv"
    local: bool = True

    def incidence(self, axis: Axis) -> Incidence:
        reads = axis.reads()
        position, tap = np.nonzero(reads != NOTHING)
        return Incidence(position * axis.size + reads[position, tap], tap, axis.kernel, axis.positions * axis.size)

    def bias_labels(self, axis: Axis) -> Index:
        return np.zeros(axis.positions, dtype=np.int64)


@attrs.frozen
class LocallyConnected(AbstractFamily):
    """Local, not shared: the labels are the distinct pairs of a position and a pixel of its receptive field, position by position."""

    name: str = "lcn"
    local: bool = True

    def incidence(self, axis: Axis) -> Incidence:
        pair = np.unique(CONV.incidence(axis).pair)
        return Incidence(pair, np.arange(len(pair)), len(pair), axis.positions * axis.size)

    def bias_labels(self, axis: Axis) -> Index:
        return np.arange(axis.positions)


@attrs.frozen
class FullyConnected(AbstractFamily):
    """Neither local nor shared, and connected across groups: every pair is a label of its own."""

    name: str = "efcn"
    local: bool = False
    dense: bool = True
    across_groups: bool = True

    def incidence(self, axis: Axis) -> Incidence:
        pairs = axis.positions * axis.size
        return Incidence(np.arange(pairs), np.arange(pairs), pairs, pairs)

    def bias_labels(self, axis: Axis) -> Index:
        return np.arange(axis.positions)


CONV = Convolutional()
"""The convolution: local, weights shared."""

LCN = LocallyConnected()
"""The locally connected layer: local, weights not shared."""

EFCN = FullyConnected()
"""The fully connected layer: neither local nor shared."""


@functools.lru_cache(maxsize=512)
def incidence(family: AbstractFamily, axis: Axis) -> Incidence:
    """The incidence of a family along an axis, computed once."""
    return family.incidence(axis)


def label_counts(family: AbstractFamily, geometry: ConvGeometry) -> tuple[int, ...]:
    """Labels of the family along each axis; their product times the channel block is the number of weights."""
    return tuple(incidence(family, axis).labels for axis in geometry.axes)


def share_counts(family: AbstractFamily, geometry: ConvGeometry) -> NDArray[np.float64]:
    """How many entries of the dense matrix each label stands for, [labels of axis 1, labels of axis 2, ...]."""
    counts = [incidence(family, axis).gram.diagonal() for axis in geometry.axes]
    return np.asarray(functools.reduce(np.multiply.outer, counts))
