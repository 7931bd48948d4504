"""The networks around one: its weights moved by no more than a radius, in lengths of one's choice."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

import torch

from anarch_core.curvature.operators import AbstractOperator, ProjectedOperator, ScaledOperator
from anarch_core.curvature.risk import Risk
from anarch_core.errors import ProbeError
from anarch_core.network import with_parameters

FilterView = Callable[[torch.Tensor], torch.Tensor]
"""A tensor shaped as a parameter -> the same seen as [groups, filters, ...], without a copy."""


class Neighbourhood:
    """The weights ``w + D u`` for all ``u`` of a subspace whose length is at most a radius, with a diagonal ``D``.

    The length is the Euclidean norm of ``u``; or, where there are filters, the largest of the norms of the filters' own parts, so that each
    filter may move by the radius whatever the others do. Vectors ``u`` are flat, [P], as those of the risk.

    Beside what a gradient takes it holds one vector as large as the network: the weights that are tried. The network itself is never
    written to, and must not change while this is in use.

    Attributes:
        risk: the loss, at the weights ``w``.
        stretch: diagonal of ``D``, [P], 0 for what stays as it is; None for the identity.
        project: orthogonal projection onto the subspace, of a flat vector; ``D`` must map the subspace into itself, up to units. None
            for the whole space.
        filters: by parameter name; a parameter without must have no stretch. None for one length of all.
    """

    def __init__(
        self,
        risk: Risk,
        *,
        stretch: torch.Tensor | None = None,
        project: Callable[[torch.Tensor], torch.Tensor] | None = None,
        filters: Mapping[str, FilterView] | None = None,
    ) -> None:
        """Say what lengths are.

        Args:
            risk: the loss.
            stretch: diagonal of ``D``.
            project: onto the subspace.
            filters: by parameter name.

        Raises:
            ProbeError: several processes hold the network together.
        """
        if risk.shards is not None:
            msg = f"the networks around one that {risk.shards.size} processes hold together have no lengths here; measure it in one process"
            raise ProbeError(msg)
        self.risk = risk
        self.stretch = stretch
        self.project = project
        self.filters = filters

    @functools.cached_property
    def _tried(self) -> tuple[torch.Tensor, Risk]:
        """The weights that are tried, [P], and their risk; made when it is first asked for."""
        risk, weights = self.risk, torch.empty(self.risk.size, dtype=self.risk.dtype, device=self.risk.device)
        network = with_parameters(risk.model, risk.named_views(weights))
        for name, parameter in network.named_parameters():
            if name in risk.names:
                parameter.requires_grad_()
        return weights, Risk(network, risk.inputs, risk.targets, parameters=risk.names, loss=risk.loss, batch_size=risk.batch_size)

    @functools.cached_property
    def loss(self) -> float:
        """The risk at the weights ``w``."""
        return self.risk.value()

    def change(self, u: torch.Tensor, *, sign: int = 1) -> float:
        """The risk at ``w + sign D u`` less that at ``w``.

        Args:
            u: [P], of the subspace; never changed.
            sign: 1 or -1.

        Raises:
            ProbeError: it is not finite.
        """
        found = self._at(u, sign).value()
        if not abs(found - self.loss) < float("inf"):
            msg = f"the loss is {found} within the radius and {self.loss} at the network itself"
            raise ProbeError(msg)
        return found - self.loss

    def slope(self, u: torch.Tensor) -> torch.Tensor:
        """Gradient by ``u`` of the risk at ``w + D u``, within the subspace, [P]; the caller may overwrite it."""
        gradient = self._at(u, 1).gradient()
        if self.stretch is not None:
            gradient.mul_(self.stretch)
        return gradient if self.project is None else self.project(gradient)

    def noise(self, generator: torch.Generator) -> torch.Tensor:
        """A random vector of the subspace, [P]: standard normal in every direction; where there are filters, uniform on each one's sphere.

        Args:
            generator: on the network's device.

        Raises:
            ProbeError: nothing can be moved.
        """
        vector = torch.randn(self.risk.size, dtype=self.risk.dtype, device=self.risk.device, generator=generator)
        if self.stretch is not None:
            vector.mul_(self.stretch != 0)
        if self.project is not None:
            vector = self.project(vector)
        if not vector.any():
            msg = "no weight can be moved: all that the radius is relative to are zero"
            raise ProbeError(msg)
        return vector if self.filters is None else self.onto(vector, 1.0)

    def onto(self, u: torch.Tensor, radius: float) -> torch.Tensor:
        """Give ``u``, in place, the length ``radius``, every filter its own; what is zero stays so.

        Raises:
            ProbeError: it has no length that is finite.
        """
        for part, lengths in self._lengths(u):
            if not lengths.isfinite().all():
                msg = f"the length of a direction, as of the gradient, is not finite in {self.risk.dtype}"
                raise ProbeError(msg)
            part.mul_(torch.where(lengths > 0, radius / lengths, 0))
        return u

    def into(self, u: torch.Tensor, radius: float) -> torch.Tensor:
        """The nearest vector no longer than ``radius``, in place."""
        for part, lengths in self._lengths(u):
            part.mul_(torch.where(lengths > radius, radius / lengths, 1))
        return u

    def curvature(self, hessian: AbstractOperator) -> AbstractOperator:
        """The Hessian of the risk by ``u`` at ``w``, on the subspace.

        Args:
            hessian: of the risk by the weights.
        """
        operator = hessian if self.stretch is None else ScaledOperator(hessian, self.stretch)
        return operator if self.project is None else ProjectedOperator(operator, self.project)

    def _at(self, u: torch.Tensor, sign: int) -> Risk:
        weights, risk = self._tried
        with torch.no_grad():
            steps: Sequence[torch.Tensor] = self.risk.views(u)
            stretches = [None] * len(steps) if self.stretch is None else self.risk.views(self.stretch)
            for weight, step, stretch, moved in zip(self.risk.parameters, steps, stretches, self.risk.views(weights), strict=True):
                if stretch is None:
                    torch.add(weight, step, alpha=sign, out=moved)
                else:
                    torch.addcmul(weight, step, stretch, value=sign, out=moved)
        return risk

    def _lengths(self, u: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The parts of a vector that have a length of their own, with it, to be multiplied with them."""
        if self.filters is None:
            return [(u, u.norm())]
        views = self.risk.named_views(u)
        parts = [view(views[name]) for name, view in self.filters.items()]
        return [(part, filter_norms(part)) for part in parts]


def filter_norms(filters: torch.Tensor) -> torch.Tensor:
    """Norm of every filter of a view [groups, filters, ...], broadcastable to it."""
    norms: torch.Tensor = torch.linalg.vector_norm(filters, dim=tuple(range(2, filters.ndim)), keepdim=True)
    return norms
