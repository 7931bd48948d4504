"""Checks of the family: the way back to the constraints, and the distance from them."""

from __future__ import annotations

import copy
import itertools
from typing import cast

import pytest
import torch
from torch import nn

from anarch_core.constraint.parts import PARTS, Drift
from anarch_core.errors import AnarchError, PluginError
from anarch_core.layers.base import RelaxedLayer
from anarch_core.relaxation.measured import measured_drift
from anarch_core.testing import linear
from anarch_core.testing.cases import Case, apart, disturb, numbers_of
from anarch_core.testing.snapshot import relative
from anarch_core.testing.subject import RelaxationSubject

DRAWS = 100
"""Default initialisations that means are taken over."""


class FamilyChecks(RelaxationSubject):
    """Projection, drift, parts of tensors and initialisation of the relaxed layer agree with each other."""

    def test_projection_undoes_the_lift(self) -> None:
        """Projecting a relaxed layer that was not trained gives its parent again."""

        def check(case: Case, layer: RelaxedLayer) -> None:
            parent, back = case.module, layer.project()
            error = apart(case.outputs(back), case.outputs())
            assert error <= self.allowed, f"project() of a fresh layer differs from the parent by {error:.1e}; it must undo the lift"
            assert type(back) is type(parent), f"project() gives a {type(back).__name__}, but the parent was a {type(parent).__name__}"
            assert repr(back) == repr(parent), f"project() gives {back}, but the parent was {parent}"
            lost = {name for name, _ in parent.named_parameters()} ^ {name for name, _ in back.named_parameters()}
            assert not lost, f"after lift and project() there are other parameters: {', '.join(sorted(lost))}"
            for name, parameter in parent.named_parameters():
                error = relative(back.get_parameter(name), parameter)
                assert error <= self.allowed, (
                    f"after lift and project() the parent's {name} differs by {error:.1e}; where no output depends on a number "
                    "(a tap that only reads padding), keep the parent's"
                )

        self.on_generated(check)

    def test_leaves_the_constrained_family(self) -> None:
        """Gradients are finite and reach every parameter, and one step of gradient descent leads off the constrained family."""
        case, layer = self.lifted()
        generator = torch.Generator().manual_seed(1)
        loss = torch.stack(
            [
                (output - torch.randn(output.shape, dtype=output.dtype, generator=generator)).square().mean()
                for output in case.numbers(layer)
            ]
        ).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        without = [name for name, parameter in layer.named_parameters() if parameter.requires_grad and parameter.grad is None]
        assert not without, f"no gradient reaches {', '.join(without)}; use it in forward(), or register it as a buffer"
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                if parameter.grad is not None:
                    assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite at the switch"
                    parameter.sub_(parameter.grad, alpha=0.1)
            left = apart(case.outputs(layer), case.outputs(layer.project()))
        assert left > 1e-8, (
            "after one step of gradient descent the layer still is its own projection: the switch is a saddle point. "
            "Break the symmetry, e.g. by different factors for copies that start equal, so that gradients tell them apart"
        )
        drift = _drift(layer)
        assert drift is None or drift.unshared + drift.off_local > 1e-16 * drift.total, (
            "one step of gradient descent left the constrained family, but drift() still finds nothing unshared nor off-local"
        )

    def test_is_twice_differentiable(self) -> None:
        """Gradients can be differentiated again, as curvature probes do, where the parent's can."""
        case, layer = self.lifted()

        def size_of_gradients(module: nn.Module) -> torch.Tensor:
            parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
            loss = torch.stack([output.pow(3).sum() for output in case.numbers(module)]).sum()
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            return torch.stack([gradient.square().sum() for gradient in gradients]).sum()

        try:
            size_of_gradients(case.module).backward()  # type: ignore[no-untyped-call]
        except RuntimeError:
            return
        size = size_of_gradients(layer)
        assert size.requires_grad, "the gradient cannot be differentiated; write forward() in differentiable operations"
        try:
            # torch.autograd.grad would pass over nodes that lead to no parameter, as those that refuse do.
            size.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            msg = f"the gradient cannot be differentiated: {error}; write the backward pass in differentiable operations"
            raise AssertionError(msg) from error
        parameters = list(layer.parameters())
        finite = all(bool(parameter.grad.isfinite().all()) for parameter in parameters if parameter.grad is not None)
        assert finite, "a second derivative is not finite"

    def test_drift_of_a_fresh_layer_is_nothing(self) -> None:
        """Right after the lift all of the weight is shared, and nothing has moved."""

        def check(case: Case, layer: RelaxedLayer) -> None:
            drift = _drift(layer)
            if drift is None:
                return
            apart = drift.unshared + drift.off_local
            assert apart <= max(self.allowed, 1e-10) ** 2 * drift.total or apart == 0, (
                f"drift() of a fresh layer finds {drift.unshared:.1e} unshared and {drift.off_local:.1e} off-local of {drift.total:.1e}"
            )
            self._require_all_shared(layer)
            still = layer.drift(copy.deepcopy(layer))
            assert still.moved is not None, "drift(reference) must say how far the shared part moved"
            assert still.reference is not None, "drift(reference) must say how large the reference's shared part is"
            assert still.moved <= 1e-18 * max(still.reference, 1e-300), f"drift() of a layer from itself moved by {still.moved:.1e}"

        self.on_generated(check)

    def _require_all_shared(self, layer: RelaxedLayer) -> None:
        """What penalties take away, and ablations leave out, of a layer that obeys the constraint still."""
        weights = {name: parameter.detach() for name, parameter in layer.named_parameters() if name in layer.drifting()}
        try:
            for name, weight in weights.items():
                layer.gram(weight, name)  # raises where parameters are no weights, which no penalty holds
            beside = layer.weighted(weights, {"unshared": 1.0, "off-local": 1.0})
        except AnarchError:
            return  # a clear refusal; probes report it
        norms = [sum(float(tensor.double().square().sum()) for tensor in tensors.values()) for tensors in (beside, weights)]
        assert norms[0] <= max(self.allowed, 1e-10) ** 2 * norms[1], (
            f"split() calls {norms[0]:.1e} of {norms[1]:.1e} of a fresh layer's weights unshared or off-local, and penalties and probes "
            "take it away. Where the constrained weights are a fixed W0 and something else, hold W0 as a buffer and let the parameter be "
            "the rest; where their multiples are not constrained, raise a SurgeryError in split()"
        )

    def test_drift_parts_are_squared_norms(self) -> None:
        """Parts of the drift are not negative, and add up to the layer's matrix if they did when it was lifted; `moved` is a distance."""
        case, layer = self.lifted()
        start = copy.deepcopy(layer)
        drift, matrix = _drift(layer), _matrix(case, layer)
        if drift is None:
            return
        of_matrix = matrix is not None and drift.total == pytest.approx(matrix, rel=1e-6)
        disturb(layer)
        drift = measured_drift(layer, "layer")
        nearest = self.lift(case.having(layer.project()))
        trained, projected = copy.deepcopy(layer), nearest.drift()  # before calls of the layer, which may move its averages
        matrix = _matrix(case, layer) if of_matrix else None
        assert matrix is None or drift.total == pytest.approx(matrix, rel=1e-6), (
            f"the parts of drift() add up to {drift.total:.6g}, but the layer's matrix has a squared norm of {matrix:.6g}"
        )
        assert drift.shared == pytest.approx(projected.total, rel=1e-6), (
            f"drift().shared is {drift.shared:.6g}, but the projection, lifted again, has a squared norm of {projected.total:.6g}"
        )
        _require_distance(trained, nearest, start, self.lift(case.having(start.project())))

    def test_nothing_to_relax_is_said(self) -> None:
        """Layers of `cases` that are relaxed can leave the constrained family; where no weights do, `idle` says that nothing is to do."""
        if self._of_convolutions:
            return  # of those, one position and one pixel are a member of every family

        def check(case: Case, layer: RelaxedLayer) -> None:
            disturb(layer)
            drift = _drift(layer)
            assert drift is None or drift.unshared + drift.off_local > 1e-18 * drift.total, (
                f"{case} is relaxed, and whatever its weights are then, drift() finds nothing unshared nor off-local; "
                "say in `idle` why there is nothing to relax"
            )

        self.on_generated(check)

    def test_initial_drift_is_that_of_default_initialisation(self) -> None:
        """Over many default initialisations the parts of the drift have the means that its `initial` says, where it says any."""
        _, layer = self.lifted()
        drift = _drift(layer)
        if drift is None or drift.initial is None:
            return
        found = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for _ in range(DRAWS):
                layer.reset_parameters()
                now = layer.drift()
                found.append([now.shared, now.unshared, now.off_local])
        drawn = torch.tensor(found, dtype=torch.float64)
        for part, mean, spread, said in zip(PARTS, drawn.mean(0).tolist(), drawn.std(0).tolist(), drift.initial, strict=True):
            assert abs(mean - said) <= 6 * spread / DRAWS**0.5 + 1e-9 * sum(drift.initial), (
                f"drift().initial says {said:.4g} for the {part} part, and {DRAWS} default initialisations have a mean of {mean:.4g}; "
                "correct it (of a Link, its `variance`: that of an entry at default initialisation), or leave it out"
            )

    def test_split_parts_add_up(self) -> None:
        """The parts of any tensor shaped as a parameter add up to it, splitting one again changes nothing, keep() gives their sums."""
        _, layer = self.lifted()
        generator = torch.Generator().manual_seed(1)
        for name, parameter in layer.named_parameters():
            tensor = torch.randn(parameter.shape, dtype=parameter.dtype, generator=generator)
            try:
                parts = layer.split(tensor, name)
            except AnarchError:
                continue  # a clear refusal; probes report it
            assert len(parts) == 3, f"split(..., {name!r}) gives {len(parts)} parts, expected (shared, unshared, off-local)"
            for part, label in zip(parts, PARTS, strict=True):
                assert part.shape == tensor.shape, f"the {label} part of {name} is {list(part.shape)}, expected {list(tensor.shape)}"
            assert relative(sum(parts, torch.zeros_like(tensor)), tensor) < 1e-9, f"the parts of {name} do not add up to it"
            for index, label in enumerate(PARTS):
                for other, again in enumerate(layer.split(parts[index], name)):
                    expected = parts[index] if other == index else torch.zeros_like(tensor)
                    error = float((again - expected).abs().max() / tensor.abs().max())
                    assert error < 1e-9, f"split() of the {label} part of {name} does not give that part back: it is no projection"
            for kept in itertools.chain.from_iterable(itertools.combinations(PARTS, count) for count in range(len(PARTS) + 1)):
                expected = sum((part for part, label in zip(parts, PARTS, strict=True) if label in kept), torch.zeros_like(tensor))
                error = float((layer.keep(tensor, kept, name) - expected).abs().max() / tensor.abs().max())
                assert error < 1e-9, f"keep(..., {kept}, {name!r}) is not the sum of these parts of split()"

    def test_reset_depends_on_the_seed_alone(self) -> None:
        """Default initialisation is a function of the random state: equal for equal seeds, whatever the weights were."""
        case, layer = self.lifted()
        values = []
        for seed in (0, 0, 1):
            disturb(layer)
            torch.manual_seed(seed)
            with torch.random.fork_rng(devices=[]):
                layer.reset_parameters()
            values.append({name: parameter.detach().clone() for name, parameter in layer.named_parameters()})
        kept = [name for name in values[0] if not torch.equal(values[0][name], values[1][name])]
        assert not kept, f"reset_parameters() leaves something of the old {', '.join(kept)}; initialise every parameter"
        assert any(not torch.equal(values[1][name], values[2][name]) for name in values[0]), "reset_parameters() ignores the seed"
        finite = all(bool(output.isfinite().all()) for output in case.numbers(layer))
        assert finite, "a freshly initialised layer gives numbers that are not finite"


def _require_distance(layer: RelaxedLayer, nearest: RelaxedLayer, start: RelaxedLayer, first: RelaxedLayer) -> None:
    """Where the drift is by squares of the parameters, those of the two projections say how far the shared part moved.

    Args:
        layer: that was trained.
        nearest: its projection, lifted.
        start: before.
        first: the projection of that, lifted.
    """
    here, there = linear.parameters(nearest), linear.parameters(first)

    def total(numbers: torch.Tensor) -> float:
        return cast(RelaxedLayer, linear.having(nearest, numbers)).drift().total

    whole = total(here)
    if abs(total(2 * here) - 4 * whole) > 1e-9 * whole:
        return
    drift, distance, before = layer.drift(start), total(here - there), total(there)
    for name, said, expected in (("moved", drift.moved, distance), ("reference", drift.reference, before)):
        told = "None" if said is None else f"{said:.6g}"
        assert said == pytest.approx(expected, rel=1e-6, abs=1e-12 * whole), (
            f"drift(reference).{name} is {told}, but by the projections of both layers, lifted again, it is {expected:.6g}"
        )


def _of_rows(case: Case, layer: nn.Module) -> torch.Tensor:
    """The first argument, with all but its last dimension as one, where that makes no difference to the layer."""
    x: torch.Tensor = case.x
    rows = x.flatten(0, -2)
    try:
        found, expected = case.giving(rows).numbers(layer), case.numbers(layer)
        same = apart([output.flatten(0, -2) for output in expected], found) < 1e-9
    except (RuntimeError, ValueError, IndexError, TypeError):
        return x
    return rows if same else x


def _drift(layer: RelaxedLayer) -> Drift | None:
    """The drift; None where the layer says that it has none."""
    try:
        return measured_drift(layer, "layer")
    except PluginError:
        raise  # what is wrong with it is told
    except AnarchError:
        return None


def _matrix(case: Case, layer: nn.Module) -> float | None:
    """Squared norm of the matrix of a layer of one tensor of samples; None for one that is not linear in its input, up to a bias."""
    x = case.x
    if len(case.given) != 1 or case.calls != 1 or not isinstance(x, torch.Tensor) or not x.is_floating_point() or x.ndim < 2:
        return None
    x = _of_rows(case, layer)

    def output(x: torch.Tensor) -> torch.Tensor | None:
        result = case.giving(x).outputs(layer)[0]
        return result if isinstance(result, torch.Tensor) and len(result) == len(x) else None

    with torch.no_grad():
        found = [output(given) for given in (torch.zeros_like(x), x, 2 * x, x.flip(0), x + x.flip(0), x[:1])]
        if any(result is None for result in found):
            return None
        constant, once, twice, flipped, both, first = (result for result in found if result is not None)
        linear = relative(twice - constant, 2 * (once - constant)) < 1e-9
        linear = linear and relative(both - constant, once + flipped - 2 * constant) < 1e-9
        if not linear or relative(first, once[:1]) > 1e-9:
            return None
    jacobian = torch.autograd.functional.jacobian(lambda one: numbers_of(layer(one[None]))[0][0], x[0])  # type: ignore[no-untyped-call]
    return float(jacobian.square().sum())
