"""What an objective promises."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import attrs
import pytest
import torch

from anarch_core.errors import first_line
from anarch_core.objective import AbstractObjective, Metric
from anarch_core.surroundings import Surroundings
from anarch_core.testing.component import ComponentConformance
from anarch_core.testing.snapshot import same_bits

SAMPLES, TO_ROUNDING = 24, 1e-10


@attrs.frozen
class Case:
    """Targets of a kind, and outputs for them.

    Attributes:
        targets: [24, ...].
        classes: of the data; 0 where the targets are none.
        outputs: [24, *output_shape], float64.
    """

    targets: torch.Tensor
    classes: int
    outputs: torch.Tensor


class ObjectiveConformance(ComponentConformance):
    """Tests of an objective. It is tried on targets of several kinds; at least one of them has to suit it."""

    kind = "objective"

    def objective(self) -> AbstractObjective:
        """The objective with the tested options."""
        made: AbstractObjective = self.registry.create(self.kind, self.info.name, dict(self.options))
        return made

    def targets(self) -> Iterator[tuple[torch.Tensor, int]]:
        """Targets of 24 samples and the number of classes: class numbers, numbers, rows of them, labels, classes of positions.

        Override it for an objective that takes others.
        """
        generator = torch.Generator().manual_seed(0)
        yield torch.arange(SAMPLES) % 3, 3
        yield torch.randn(SAMPLES, generator=generator, dtype=torch.float64), 0
        yield torch.randn(SAMPLES, 4, generator=generator, dtype=torch.float64), 0
        yield torch.randint(2, (SAMPLES, 5), generator=generator), 0
        yield torch.randint(3, (SAMPLES, 4, 6), generator=generator), 3

    def cases(self) -> list[Case]:
        """All targets that are not refused."""
        made, taken, refused = self.objective(), [], []
        for targets, classes in self.targets():
            problem = made.problem(targets, classes)
            if problem is not None:
                assert "\n" not in problem, f"refuse in one line: {problem}"
                refused.append(problem)
                continue
            shape = made.output_shape(targets, classes)
            generator = torch.Generator().manual_seed(1)
            taken.append(Case(targets, classes, torch.randn(SAMPLES, *shape, generator=generator, dtype=torch.float64)))
        assert taken, f"targets of every kind are refused ({'; '.join(refused)}); override targets() to give some that suit it"
        return taken

    def test_says_what_it_is(self) -> None:
        """Scores have names of their own, which are no loss; the targets it takes and the outputs it expects are described."""
        made = self.objective()
        names = [metric.name for metric in made.metrics]
        assert names, "`metrics` is empty; name at least one score that runs are compared by"
        assert all(isinstance(metric, Metric) for metric in made.metrics), "`metrics` holds something else than Metric(...)"
        odd = [name for name in names if not name.isidentifier() or name == "loss" or names.count(name) > 1]
        assert not odd, f"scores need names of their own that can be keys, other than 'loss': {', '.join(odd)}"
        for what in ("takes", "gives"):
            assert getattr(made, what, ""), f"say in `{what}` what {'targets it takes' if what == 'takes' else 'a network has to give'}"

    def test_other_targets_are_refused(self) -> None:
        """Targets that hold nothing, and nan in the place of numbers, are refused in one line."""
        made = self.objective()
        for case in self.cases():
            bad = {"complex numbers": case.targets.to(torch.complex128)}
            if case.targets.is_floating_point():
                bad["nan"] = torch.full_like(case.targets, math.nan)
            for what, targets in bad.items():
                problem = made.problem(targets, case.classes)
                assert isinstance(problem, str), f"targets that are {what} are taken; let problem() say what it expects"
                assert "\n" not in problem, f"refuse in one line: {problem}"

    def test_losses_are_those_of_samples(self) -> None:
        """The loss of a sample does not depend on those beside it; the mean and the sum are those of the samples' losses."""
        made = self.objective()
        for case in self.cases():
            losses = made.loss(case.outputs, case.targets, "none")
            assert losses.shape == (SAMPLES,), f"loss(..., 'none') gives {tuple(losses.shape)}, expected one for each of {SAMPLES} samples"
            alone = torch.cat([made.loss(case.outputs[row : row + 1], case.targets[row : row + 1], "none") for row in range(SAMPLES)])
            torch.testing.assert_close(losses, alone, msg="the loss of a sample depends on the others in its batch")
            torch.testing.assert_close(made.loss(case.outputs, case.targets, "sum"), losses.sum(), msg="'sum' is not the sum of the losses")
            torch.testing.assert_close(made.loss(case.outputs, case.targets), losses.mean(), msg="'mean' is not the mean of the losses")

    def test_is_differentiable_twice(self) -> None:
        """First and second derivatives in the outputs are those of finite differences."""
        made = self.objective()
        for case in self.cases():
            outputs, targets = case.outputs[:3].clone().requires_grad_(), case.targets[:3]
            for order, check in (("first", torch.autograd.gradcheck), ("second", torch.autograd.gradgradcheck)):
                try:
                    check(lambda given, targets=targets: made.loss(given, targets), outputs)
                except RuntimeError as error:
                    msg = f"the {order} derivative of the loss is not that of finite differences: {first_line(error)}"
                    raise AssertionError(msg) from error

    def test_gradient_is_that_of_the_loss(self) -> None:
        """loss_and_gradient() gives the mean loss and its gradient by the outputs, for batches of any size and without a graph."""
        made = self.objective()
        for case in self.cases():
            for size in (1, 7, SAMPLES):
                outputs, targets = case.outputs[:size].clone().requires_grad_(), case.targets[:size]
                expected = made.loss(outputs, targets)
                (slope,) = torch.autograd.grad(expected, outputs)
                given = outputs.detach().clone()
                loss, gradient = made.loss_and_gradient(given, targets)
                assert same_bits(given, outputs), "loss_and_gradient() writes to the outputs"
                assert not loss.requires_grad, "loss_and_gradient() gives a loss with a graph; let it compute under torch.no_grad()"
                assert not gradient.requires_grad, "loss_and_gradient() gives a gradient with a graph; let it compute under torch.no_grad()"
                for what, number, wanted in (("loss", loss, expected.detach()), ("gradient", gradient, slope)):
                    assert number.shape == wanted.shape, (
                        f"loss_and_gradient() gives a {what} of {list(number.shape)}, not {list(wanted.shape)}"
                    )
                    error = float((number - wanted).abs().max() / wanted.abs().max().clamp(min=1.0))
                    assert error <= TO_ROUNDING, (
                        f"for {size} samples loss_and_gradient() gives another {what} than loss() and autograd, by {error:.1e}; "
                        "it is that of the mean over the samples"
                    )

    def test_scores_do_not_depend_on_the_batches(self) -> None:
        """Tallies have fixed shapes and add up; scores are floats by the names of `metrics`."""
        made = self.objective()
        for case in self.cases():
            whole = self._scores(made, case, SAMPLES)
            assert list(whole) == [metric.name for metric in made.metrics], f"scores() gives {', '.join(whole)}, not the names of `metrics`"
            odd = [name for name, value in whole.items() if type(value) is not float]
            assert not odd, f"scores() gives no float for {', '.join(odd)}"
            for size in (1, 7):
                parts = self._scores(made, case, size)
                assert parts == pytest.approx(whole, rel=1e-9, nan_ok=True), f"scores in batches of {size} are {parts}, at once {whole}"

    def test_leaves_everything_as_it_was(self) -> None:
        """Neither outputs, targets nor random states are changed."""
        made, states = self.objective(), Surroundings.now()
        for case in self.cases():
            outputs, targets = case.outputs.clone(), case.targets.clone()
            made.loss(outputs, targets)
            self._scores(made, attrs.evolve(case, outputs=outputs, targets=targets), SAMPLES)
            assert same_bits(outputs, case.outputs), "loss() or tally() writes to the outputs"
            assert same_bits(targets, case.targets), "loss() or tally() writes to the targets"
        assert not states.changed(), f"the {', '.join(states.changed())} is another afterwards"

    def test_outputs_that_are_not_numbers_have_no_loss(self) -> None:
        """The loss of nan is not finite, so that a run that diverges is told."""
        made = self.objective()
        for case in self.cases():
            assert not made.loss(torch.full_like(case.outputs, math.nan), case.targets).isfinite(), "nan has a finite loss"

    def test_can_be_learnt(self) -> None:
        """Descending on the loss improves it."""
        made = self.objective()
        for case in self.cases():
            outputs = case.outputs.clone().requires_grad_()
            before = float(made.loss(outputs, case.targets).detach())
            for _ in range(20):
                (slope,) = torch.autograd.grad(made.loss(outputs, case.targets, "sum"), outputs)
                outputs = (outputs - 0.1 * slope).detach().requires_grad_()
            after = float(made.loss(outputs, case.targets).detach())
            assert after < before, f"twenty steps along the gradient lead from a loss of {before:g} to {after:g}"

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_devices_agree(self) -> None:
        """Losses and scores on a CUDA device are those of the CPU."""
        made = self.objective()
        for case in self.cases():
            there = attrs.evolve(case, outputs=case.outputs.cuda(), targets=case.targets.cuda())
            torch.testing.assert_close(made.loss(there.outputs, there.targets).cpu(), made.loss(case.outputs, case.targets))
            assert self._scores(made, there, 7) == pytest.approx(self._scores(made, case, 7), rel=1e-9, nan_ok=True)

    @staticmethod
    def _scores(made: AbstractObjective, case: Case, size: int) -> Mapping[str, float]:
        totals: dict[str, torch.Tensor] = {}
        for outputs, targets in zip(torch.split(case.outputs, size), torch.split(case.targets, size), strict=True):
            for name, tensor in made.tally(outputs, targets).items():
                assert tensor.dtype in (torch.int64, torch.float64), f"tally {name!r} is {tensor.dtype}, expected int64 or float64"
                assert name not in totals or totals[name].shape == tensor.shape, f"tally {name!r} changes its shape with the batch"
                totals[name] = totals[name] + tensor if name in totals else tensor
        return made.scores(totals, SAMPLES)
