"""The deviation from the constrained subspace, in three orthogonal parts."""

from __future__ import annotations

import math

from anarch_core.lattice import Drift
from anarch_core.probe import AbstractProbe, Measurement, ProbeContext
from anarch_core.relaxation import drift


class Delta(AbstractProbe):
    """δ = ‖off-local part‖ / ‖W‖ over the relaxed layers (d'Ascoli et al. 2019, section 4.2), and its siblings.

    Scalars: ``off_local`` (the paper's δ), ``unshared`` (what giving up sharing did), ``shared`` (the convolution that is left), each a
    norm over the norm of all relaxed weights, so that their squares add up to 1; ``*_normalised``, the same over the value expected at
    default initialisation; ``moved``, how far the shared part went since the start of the segment, over its norm there.
    """

    needs = frozenset({"relaxed"})
    sharded = True
    headline = ("off_local", "unshared")

    def measure(self, context: ProbeContext) -> Measurement:
        """Norms of the parts; reads weights only, needs no data."""
        report = drift(context.model, context.reference)
        layers = {path: _ratios(part) for path, part in report.layers.items()}
        return Measurement(scalars=_ratios(report.total), details={"layers": layers})


def _ratios(part: Drift) -> dict[str, float | None]:
    parts = {"off_local": part.off_local, "unshared": part.unshared, "shared": part.shared}
    values: dict[str, float | None] = {name: _root(square, part.total) for name, square in parts.items()}
    initial = part.initial or (0.0, 0.0, 0.0)
    expected = dict(zip(("shared", "unshared", "off_local"), initial, strict=True))
    for name in ("off_local", "unshared"):
        value, base = values[name], _root(expected[name], sum(initial))
        values[f"{name}_normalised"] = value / base if value is not None and base else None
    values["moved"] = None if part.moved is None or part.reference is None else _root(part.moved, part.reference)
    return values


def _root(square: float, whole: float) -> float | None:
    return math.sqrt(square / whole) if whole > 0 else None
