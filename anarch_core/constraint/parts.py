"""What a weight is made of as seen from a constraint, and how large its parts are."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, get_args

import attrs

Part = Literal["shared", "unshared", "off-local"]
"""What a weight of a relaxed layer is made of, as seen from the constraint it came from."""

PARTS: tuple[Part, ...] = get_args(Part)
"""All three."""


@attrs.frozen(kw_only=True)
class Drift:
    """Squared norms of three orthogonal parts of a relaxed weight W, as seen from the constraint W = Aθ that it no longer obeys.

    W = AA⁺W + (local part of W − AA⁺W) + off-local part of W, so the squares add up; the local part is what stands where the constraint
    allows other numbers than zero. For a convolution W is the matrix from inputs to outputs and the local part lies in the receptive
    fields: there the third over the whole is the deviation δ of d'Ascoli et al. 2019, section 4.2, squared.

    Attributes:
        shared: the part that obeys the constraint (is a convolution).
        unshared: the local part less the shared one.
        off_local: the part where the constraint has zeros (outside the receptive fields).
        moved: squared distance of the shared part from the reference's; None without a reference.
        reference: squared norm of the reference's shared part; None without a reference.
        initial: expected (shared, unshared, off-local) squares at default initialisation: geometry alone, nothing learned. None where not
            known.
    """

    shared: float
    unshared: float
    off_local: float
    moved: float | None = None
    reference: float | None = None
    initial: tuple[float, float, float] | None = None

    @classmethod
    def of_all(cls, parts: Collection[Drift]) -> Drift:
        """The drift of several weights together; what is not known of one is not known of all."""
        initial = [part.initial for part in parts if part.initial is not None]
        moved = [part.moved for part in parts if part.moved is not None]
        before = [part.reference for part in parts if part.reference is not None]
        return cls(
            shared=sum(part.shared for part in parts),
            unshared=sum(part.unshared for part in parts),
            off_local=sum(part.off_local for part in parts),
            moved=sum(moved) if len(moved) == len(parts) else None,
            reference=sum(before) if len(before) == len(parts) else None,
            initial=(sum(v[0] for v in initial), sum(v[1] for v in initial), sum(v[2] for v in initial))
            if len(initial) == len(parts)
            else None,
        )

    @property
    def total(self) -> float:
        """Squared norm of the weight."""
        return self.shared + self.unshared + self.off_local
