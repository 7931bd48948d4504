"""What the public verbs return: records of what was relaxed, how exact it is, and how far it drifted."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
from torch import nn

from anarch_core.constraint.parts import Drift
from anarch_core.display import Displayed, Overview, Table, frame
from anarch_core.layers.base import Cost
from anarch_core.machine import human_bytes
from anarch_core.relaxation.base import AbstractRelaxation, Site

if TYPE_CHECKING:
    from pandas import DataFrame


def refusal_of(reasons: Mapping[str, str]) -> str:
    """Says which layers cannot be relaxed, and why: those of one reason together.

    Args:
        reasons: path -> the end of the sentence.
    """
    return "; ".join(f"{listed(paths, len(paths))} cannot be relaxed: {reason}" for reason, paths in _by_reason(reasons).items())


def idle_of(reasons: Mapping[str, str]) -> str:
    """Says what there is nothing to relax in, and why: layers of one reason together, the first few of many by name.

    Args:
        reasons: path -> the end of the sentence.
    """
    return "; ".join(f"nothing to relax in {listed(paths)}: {reason}" for reason, paths in _by_reason(reasons).items())


def listed(paths: Sequence[str], most: int = 4) -> str:
    """Paths in words, at most so many of them."""
    named = ", ".join(path or "the network" for path in paths[:most])
    return named if len(paths) <= most else f"{named} and {len(paths) - most} more"


def _by_reason(reasons: Mapping[str, str]) -> Mapping[str, Sequence[str]]:
    by_reason: dict[str, list[str]] = {}
    for path, reason in reasons.items():
        by_reason.setdefault(reason, []).append(path)
    return by_reason


AMPLIFIED = 10
"""A deviation of so many times what the parent itself moves by is still explained by it."""


@attrs.frozen(kw_only=True)
class AppliedRelaxation:
    """What must be done to a base network before a relaxed network's weights fit it. JSON-ready.

    Attributes:
        name: of the relaxation.
        options: those that differ from their defaults.
        layers: path of every replaced layer -> shape of its input without the batch dimension; () where that is not one tensor of one size.
        distribution: that provides the relaxation.
        version: of the distribution.
        api: version of the plugin interface it was applied with.
        materialised: layers whose weight was computed (weight norm and the like) until a plain convolution took their place first; path ->
            shape of its input without the batch dimension.
        calls: path -> how often a layer is called in one pass of the network, for those that are called more than once.
        digest: of what it does (:mod:`anarch_core.relaxation.fingerprint`); empty where that cannot be said, None in records of earlier
            versions.
    """

    name: str
    options: Mapping[str, Any]
    layers: Mapping[str, tuple[int, ...]]
    distribution: str
    version: str
    api: str
    materialised: Mapping[str, tuple[int, ...]] = attrs.field(factory=dict)
    calls: Mapping[str, int] = attrs.field(factory=dict)
    digest: str | None = None


@attrs.frozen(kw_only=True)
class LayerReport:
    """One replaced layer.

    Attributes:
        path: of the layer.
        before: type of the parent.
        parameters_before: of the parent.
        cost: of the relaxed layer.
        error: largest deviation from the parent's output over the parent's largest output, on the example input; None when not checked,
            or where nothing could be compared.
    """

    path: str
    before: str
    parameters_before: int
    cost: Cost
    error: float | None = None


@attrs.frozen(kw_only=True, repr=False)
class RelaxationReport(Displayed):
    """What was replaced, and how exact it is.

    Attributes:
        relaxation: its name.
        layers: one report per replaced layer, in the order of the network.
        refused: path -> reason, for candidates that cannot be relaxed (only in a plan; :func:`relax` raises).
        idle: path -> reason, for chosen layers that the relaxation has nothing to do for, and that stayed as they were.
        dtype: of the parameters, which sets what rounding is.
        error: as for a layer, end to end; None when not checked, or where nothing could be compared.
        tolerance: above it the relaxation is not called exact.
        amplified: how far the outputs of the parent itself move when those of its layers are rounded otherwise, measured where the error
            exceeds the tolerance though every layer is exact; an error of that size is rounding.
        notes: sentences on what was not compared, and why.
        kept: chosen layers that this very relaxation had made before, and that stayed as they were.
    """

    relaxation: str
    layers: Sequence[LayerReport]
    refused: Mapping[str, str] = attrs.field(factory=dict)
    idle: Mapping[str, str] = attrs.field(factory=dict)
    dtype: str = "float32"
    error: float | None = None
    tolerance: float = 0.0
    amplified: float = 0.0
    notes: Sequence[str] = ()
    kept: Sequence[str] = ()

    @property
    def exact(self) -> bool | None:
        """Whether every error that was measured is within tolerance; None where none was."""
        layers = [layer.error for layer in self.layers if layer.error is not None]
        if self.error is None and not layers:
            return None
        allowed = max(self.tolerance, AMPLIFIED * self.amplified)
        return all(error <= self.tolerance for error in layers) and (self.error is None or self.error <= allowed)

    @property
    def refusal(self) -> str | None:
        """Says which layers cannot be relaxed, and why; None where all can."""
        return refusal_of(self.refused) if self.refused else None

    @property
    def idleness(self) -> str | None:
        """Says which of the chosen layers there is nothing to relax in, and why; None where there is something in all of them."""
        return idle_of(self.idle) if self.idle else None

    @property
    def why_none(self) -> str:
        """What is known of why no layer is replaced, in brackets at the end of a sentence; empty where nothing is."""
        known = [*([self.idleness] if self.idleness else []), *self.notes]
        return f" ({'; '.join(known)})" if known else ""

    @property
    def complaint(self) -> str | None:
        """Says by how much it is not exact, and where; None where it is, or where nothing was compared."""
        if self.exact is not False:
            return None
        worst = max(self.layers, key=lambda layer: layer.error or 0.0, default=None)
        end = "" if self.error is None else f"{self.error:.1e} end to end"
        layer = "" if worst is None or worst.error is None else f"{worst.error:.1e} at {worst.path or 'the network'}"
        sizes = f"{end} ({layer})" if end and layer else end or layer
        return f"{self.relaxation} differs from its parent by {sizes}, more than {self.tolerance:.0e}"

    @property
    def bytes(self) -> int:
        """Bytes of the relaxed layers."""
        return sum(layer.cost.bytes for layer in self.layers)

    def overview(self) -> Overview:
        """What was replaced, and how exactly; shown by ``print`` and by notebooks."""
        compared = any(layer.error is not None for layer in self.layers)
        headings = ["layer", "type", "parameters", "relaxed", "size", "FLOPs a sample", *(["error"] if compared else [])]
        rows = [
            [
                layer.path,
                layer.before,
                f"{layer.parameters_before:,}",
                f"{layer.cost.parameters:,}",
                human_bytes(layer.cost.bytes),
                f"{layer.cost.flops:,}",
                *([_error(layer.error)] if compared else []),
            ]
            for layer in self.layers
        ]
        return Overview(
            title=f"{self.relaxation}: {self._verdict}",
            tables=[Table(headings=headings, rows=rows, texts=2)] if rows else [],
            notes=[*(said for said in (self.refusal, self.idleness) if said), *self.notes],
        )

    @property
    def _verdict(self) -> str:
        if self.exact is None:
            return "not compared with its parent"
        if self.complaint is not None:
            return f"not exact, {self.complaint.partition(' ')[2]}"
        return f"exact to rounding ({self.dtype}); end to end {_error(self.error)} from its parent"

    def to_dataframe(self) -> DataFrame:
        """A row for each replaced layer.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        rows = ({**attrs.asdict(layer, recurse=False), **attrs.asdict(layer.cost)} for layer in self.layers)
        return frame({name: value for name, value in row.items() if name != "cost"} for row in rows)


@attrs.frozen(kw_only=True, repr=False)
class Relaxed(Displayed):
    """A relaxed network.

    Attributes:
        model: a new network; the parent is as it was.
        parent: the network it came from.
        report: what was replaced and how exact it is.
        parameter_map: name of every parameter of the parent -> names of those that took its place.
        sites: the replaced layers of the parent by path.
        relaxation: that was applied.
        materialised: paths of the sites whose module is a plain convolution that took the place of the parent's layer first.
    """

    model: nn.Module
    parent: nn.Module
    report: RelaxationReport
    parameter_map: Mapping[str, tuple[str, ...]]
    sites: Mapping[str, Site]
    relaxation: AbstractRelaxation
    materialised: Collection[str] = ()

    def overview(self) -> Overview:
        """Its report; shown by ``print`` and by notebooks."""
        return self.report.overview()


@attrs.frozen(kw_only=True, repr=False)
class DriftReport(Displayed):
    """Drift of every relaxed layer, and of all of them together.

    Attributes:
        layers: path -> drift.
    """

    layers: Mapping[str, Drift]

    @property
    def total(self) -> Drift:
        """Sums over the relaxed layers; a part that some layer does not know is None."""
        return Drift.of_all(self.layers.values())

    def overview(self) -> Overview:
        """How large the parts are, by layer and in all; shown by ``print`` and by notebooks."""
        parts = [*self.layers.items(), ("all", self.total)] if len(self.layers) > 1 else list(self.layers.items())
        moved = all(part.moved is not None and part.reference is not None for _, part in parts)
        rows = [[path, *_shares(part)[: 4 if moved else 3]] for path, part in parts]
        caption = "Norms of three orthogonal parts over that of the whole weight; off-local is the δ of d'Ascoli et al. (2019)"
        if moved:
            caption += "; moved: distance of the shared part from the reference's, over its norm"
        return Overview(
            title=f"drift of {len(self.layers)} relaxed layer{'s' * (len(self.layers) != 1)}",
            tables=[
                Table(
                    headings=["layer", "shared", "unshared", "off-local", *(["moved"] if moved else [])],
                    rows=rows,
                    caption=f"{caption}.",
                    strong=[len(self.layers)] if len(self.layers) > 1 else [],
                )
            ]
            if self.layers
            else [],
        )

    def to_dataframe(self) -> DataFrame:
        """A row for each relaxed layer: the squared norms of :class:`~anarch_core.lattice.Drift`.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        return frame(
            {"path": path, **attrs.asdict(part, filter=lambda field, _: field.name != "initial")} for path, part in self.layers.items()
        )


def _error(error: float | None) -> str:
    return "–" if error is None else f"{error:.1e}"


def _shares(part: Drift) -> list[str]:
    """Norms of the three parts over that of the whole, and how far the shared one moved over its norm before."""
    of_whole = [_ratio(squared, part.total) for squared in (part.shared, part.unshared, part.off_local)]
    return [*of_whole, _ratio(part.moved or 0.0, part.reference or 0.0)]


def _ratio(squared: float, whole: float) -> str:
    return f"{math.sqrt(squared / whole):.4f}" if whole > 0 else "–"
