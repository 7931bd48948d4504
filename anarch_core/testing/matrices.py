"""Checks by explicit matrices, on small layers: the parts, the projection, the optimizer's state and gradients are those of the lift."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from anarch_core.constraint.parts import PARTS
from anarch_core.errors import AnarchError
from anarch_core.layers.base import RelaxedLayer
from anarch_core.layers.reparametrised import ReparametrisedLayer
from anarch_core.testing import linear
from anarch_core.testing.cases import Case
from anarch_core.testing.snapshot import relative
from anarch_core.testing.subject import RelaxationSubject

ROUNDING = 1e-9


class MatrixChecks(RelaxationSubject):
    """What a layer derives by formulas is compared with what least squares and unit vectors give."""

    def test_parts_are_orthogonal_projections(self) -> None:
        """The matrices of the parts are projections, orthogonal in the norm of the drift, and the shared part is what lifts can reach."""
        for case, layer in self.small():
            try:
                parts, norm = linear.projectors(layer), linear.metric(layer)
            except AnarchError:
                continue  # a clear refusal; probes report it
            whole = torch.stack(list(parts.values())).sum(0)
            assert relative(whole, torch.eye(len(whole), dtype=torch.float64)) < ROUNDING, "the parts of a unit vector do not add up to it"
            for part, matrix in parts.items():
                for other in PARTS:
                    expected = matrix if other == part else torch.zeros_like(matrix)
                    error = float((parts[other] @ matrix - expected).abs().max())
                    told = "is not the same again" if other == part else f"has a {other} part"
                    assert error < ROUNDING, f"the {part} part of a tensor {told}, by {error:.1e}: split() is no projection"
                skew = 0.0 if norm is None else float((norm @ matrix - (norm @ matrix).T).abs().max() / norm.abs().max())
                assert skew < ROUNDING, f"the {part} part is not orthogonal to the others in the norm of drift(), by {skew:.1e}"
            lift = self._lift(case)
            if lift is None and norm is not None:
                _require_parts_as_drift_says(layer)
            if lift is None or bool(lift.constant.any()):
                continue
            error = relative(parts["shared"] @ lift.matrix, lift.matrix)
            assert error < ROUNDING, f"split() calls something of a lifted layer unshared or off-local, {error:.1e} of it"
            free, reached = round(float(parts["shared"].trace())), int(torch.linalg.matrix_rank(lift.matrix))
            more = free > reached and isinstance(layer, ReparametrisedLayer)  # its parameters may stand for one matrix in several ways
            assert free == reached or more, f"the shared part has {free} dimensions, but lifts of all parents have {reached}"

    def test_projection_is_nearest(self) -> None:
        """No other parent, lifted, is nearer to a trained layer than its projection: least squares over lifts of unit parents agree."""
        for case, layer in self.small():
            try:
                lift, norm = self._lift(case), linear.metric(layer)
            except AnarchError:
                continue
            if lift is None or norm is None:
                continue
            numbers = torch.randn(len(norm), dtype=torch.float64, generator=torch.Generator().manual_seed(7))
            trained = cast(RelaxedLayer, linear.having(layer, numbers))
            found = linear.parameters(self.lift(case.having(trained.project()), self.site(case))) - lift.constant
            away = numbers - lift.constant
            root = torch.linalg.cholesky(norm + ROUNDING * torch.eye(len(norm), dtype=torch.float64) * norm.diagonal().max()).T
            solution = torch.linalg.lstsq(root @ lift.matrix, root @ away, driver="gelsd").solution
            nearest = float((root @ (away - lift.matrix @ solution)).norm())
            distance = float((root @ (away - found)).norm())
            assert distance <= nearest * (1 + 1e-6), (
                f"project() gives a parent at a distance of {distance:.6g} in the norm of drift(), and there is one at {nearest:.6g}; "
                "take the mean over the entries that are equal in the parent"
            )

    def test_optimizer_state_moves_as_parameters(self) -> None:
        """Averages of weights are lifted as weights are; gradients are divided among copies, so that their sum is the parent's again."""
        for case, layer in self.small():
            lift = self._lift(case)
            if lift is None:
                continue
            relaxation, site = self.relaxation(), self.site(case)
            generator = torch.Generator().manual_seed(8)
            for name, parameter in case.module.named_parameters():
                state = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
                blank = {other: torch.zeros_like(theirs) for other, theirs in case.module.named_parameters()}
                given = linear.vector({**blank, name: state})
                own = linear.vector({**blank, name: torch.ones_like(state)}) > 0
                moved = {}
                for role in ("weight", "gradient"):
                    heirs = relaxation.transport(site, layer, name, state, role)
                    if heirs is not None:
                        ours = {other: heirs.get(other, torch.zeros_like(tensor)) for other, tensor in layer.named_parameters()}
                        moved[role] = linear.vector(ours)
                if "weight" in moved:
                    error = relative(moved["weight"], lift.matrix @ given)
                    assert error < ROUNDING, f"transport({name!r}, role='weight') differs from the lift of such a parent by {error:.1e}"
                if "gradient" in moved:
                    alone = (lift.matrix != 0).sum(
                        1, keepdim=True
                    ) <= 1  # where padding lets several numbers meet, they cannot be told apart
                    reached = own & (lift.matrix != 0).any(0) & (alone | (lift.matrix == 0)).all(0)
                    error = relative((lift.matrix.T @ moved["gradient"])[reached], given[reached])
                    assert error < ROUNDING, (
                        f"transport({name!r}, role='gradient') sums to another gradient of the parent, by {error:.1e}; "
                        "divide it among the copies"
                    )

    def test_gradients_are_the_parents(self) -> None:
        """Pulled back through the lift, the gradient of a fresh relaxed layer is that of its parent."""
        for case, layer in self.small():
            lift = self._lift(case)
            if lift is None:
                continue
            expected, found = _gradient(case, case.module), lift.matrix.T @ _gradient(case, layer)
            error = relative(found, expected)
            assert error <= max(100 * self.allowed, ROUNDING), (
                f"summed over the copies of each parameter, the gradient of the relaxed layer differs from its parent's by {error:.1e}"
            )

    def _lift(self, case: Case) -> linear.Lift | None:
        site = self.site(case)
        return linear.Lift.of(lambda parent: self.lift(case.having(parent), site), case.module)


def _require_parts_as_drift_says(layer: RelaxedLayer) -> None:
    """Where the constrained layers are no linear space, and unit parents say nothing of the parts."""
    numbers = torch.randn(len(linear.parameters(layer)), dtype=torch.float64, generator=torch.Generator().manual_seed(10))
    trained = cast(RelaxedLayer, linear.having(layer, numbers))
    drift = trained.drift()
    for part, said in zip(PARTS, (drift.shared, drift.unshared, drift.off_local), strict=True):
        alone = linear.vector(trained.weighted(linear.tensors(layer, numbers), {part: 1.0}))
        found = cast(RelaxedLayer, linear.having(layer, alone)).drift().total
        assert abs(found - said) <= ROUNDING * drift.total, (
            f"the {part} part of the weights has the squared norm {found:.6g}, and drift() says {said:.6g}: split() and drift() differ"
        )


def _gradient(case: Case, module: nn.Module) -> torch.Tensor:
    """Of a loss that weighs all outputs, by all parameters."""
    generator = torch.Generator().manual_seed(9)
    outputs = case.numbers(module)
    loss = torch.stack(
        [(output * torch.randn(output.shape, dtype=output.dtype, generator=generator)).sum() + output.square().sum() for output in outputs]
    ).sum()
    named = dict(module.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return linear.vector(
        {
            name: torch.zeros_like(parameter) if gradient is None else gradient
            for (name, parameter), gradient in zip(named.items(), gradients, strict=True)
        }
    )
