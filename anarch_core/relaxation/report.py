"""What the public verbs return: records of what was relaxed, how exact it is, and how far it drifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from torch import nn

from anarch_core.lattice.drift import Drift
from anarch_core.layers.base import Cost
from anarch_core.relaxation.base import AbstractRelaxation, Site


@attrs.frozen(kw_only=True)
class AppliedRelaxation:
    """What must be done to a base network before a relaxed network's weights fit it. JSON-ready.

    Attributes:
        name: of the relaxation.
        options: those that differ from their defaults.
        layers: path of every replaced layer -> shape of its input without the batch dimension.
        distribution: that provides the relaxation.
        version: of the distribution.
        api: version of the plugin interface it was applied with.
    """

    name: str
    options: Mapping[str, Any]
    layers: Mapping[str, tuple[int, ...]]
    distribution: str
    version: str
    api: str


@attrs.frozen(kw_only=True)
class LayerReport:
    """One replaced layer.

    Attributes:
        path: of the layer.
        before: type of the parent.
        parameters_before: of the parent.
        cost: of the relaxed layer.
        error: largest deviation from the parent's output over the parent's largest output, on the example input; None when not checked.
    """

    path: str
    before: str
    parameters_before: int
    cost: Cost
    error: float | None = None


@attrs.frozen(kw_only=True)
class RelaxationReport:
    """What was replaced, and how exact it is.

    Attributes:
        relaxation: its name.
        layers: one report per replaced layer, in the order of the network.
        refused: path -> reason, for candidates that cannot be relaxed (only in a plan; :func:`relax` raises).
        dtype: of the parameters, which sets what rounding is.
        error: as for a layer, end to end; None when not checked.
        tolerance: above it the relaxation is not called exact.
    """

    relaxation: str
    layers: Sequence[LayerReport]
    refused: Mapping[str, str] = attrs.field(factory=dict)
    dtype: str = "float32"
    error: float | None = None
    tolerance: float = 0.0

    @property
    def exact(self) -> bool:
        """Whether every error that was measured is within tolerance."""
        errors = [self.error, *(layer.error for layer in self.layers)]
        return all(error <= self.tolerance for error in errors if error is not None)

    @property
    def bytes(self) -> int:
        """Bytes of the relaxed layers."""
        return sum(layer.cost.bytes for layer in self.layers)


@attrs.frozen(kw_only=True)
class Relaxed:
    """A relaxed network.

    Attributes:
        model: a new network; the parent is as it was.
        parent: the network it came from.
        report: what was replaced and how exact it is.
        parameter_map: name of every parameter of the parent -> names of those that took its place.
        sites: the replaced layers of the parent by path.
        relaxation: that was applied.
    """

    model: nn.Module
    parent: nn.Module
    report: RelaxationReport
    parameter_map: Mapping[str, tuple[str, ...]]
    sites: Mapping[str, Site]
    relaxation: AbstractRelaxation


@attrs.frozen(kw_only=True)
class DriftReport:
    """Drift of every relaxed layer, and of all of them together.

    Attributes:
        layers: path -> drift.
    """

    layers: Mapping[str, Drift]

    @property
    def total(self) -> Drift:
        """Sums over the relaxed layers; a part that some layer does not know is None."""
        parts = list(self.layers.values())
        initial = [part.initial for part in parts]
        known = [value for value in initial if value is not None]
        moved = [part.moved for part in parts if part.moved is not None]
        before = [part.reference for part in parts if part.reference is not None]
        return Drift(
            shared=sum(part.shared for part in parts),
            unshared=sum(part.unshared for part in parts),
            off_local=sum(part.off_local for part in parts),
            moved=sum(moved) if len(moved) == len(parts) else None,
            reference=sum(before) if len(before) == len(parts) else None,
            initial=(sum(v[0] for v in known), sum(v[1] for v in known), sum(v[2] for v in known)) if len(known) == len(parts) else None,
        )
