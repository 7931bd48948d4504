"""Objectives: losses against PyTorch's own, scores against their definitions, and a risk that does not depend on the batches."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from anarch_core.curvature import GaussNewtonOperator, HessianOperator, Risk
from anarch_core.data import TensorData
from anarch_core.errors import ConfigError, DataError
from anarch_core.objective import AbstractObjective, CrossEntropy
from anarch_core.plugin import get_registry
from anarch_core.training.evaluation import Tally, evaluate

NAMES = ("cross-entropy", "mse", "bce", "pixel-cross-entropy")


def objective(name: str, **options: object) -> AbstractObjective:
    made = get_registry().create("objective", name, options)
    assert isinstance(made, AbstractObjective)
    return made


def example(name: str, n: int = 24, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    if name == "cross-entropy":
        return draw(n, 4), torch.randint(4, (n,), generator=generator)
    if name == "mse":
        return draw(n, 3), draw(n, 3)
    if name == "bce":
        return draw(n, 5), torch.randint(2, (n, 5), generator=generator)
    return draw(n, 3, 4, 5), torch.randint(3, (n, 4, 5), generator=generator)


OURS = {
    "cross-entropy": functional.cross_entropy,
    "mse": functional.mse_loss,
    "bce": lambda outputs, targets: functional.binary_cross_entropy_with_logits(outputs, targets.double()),
    "pixel-cross-entropy": functional.cross_entropy,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_loss_is_pytorchs(name: str) -> None:
    outputs, targets = example(name)
    torch.testing.assert_close(objective(name).loss(outputs, targets), OURS[name](outputs, targets), rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_samples_add_up(name: str) -> None:
    outputs, targets = example(name)
    made = objective(name)
    losses = made.loss(outputs, targets, "none")
    assert losses.shape == (len(targets),)
    torch.testing.assert_close(losses.sum(), made.loss(outputs, targets, "sum"))
    torch.testing.assert_close(losses.mean(), made.loss(outputs, targets))
    for row in (0, 7):
        torch.testing.assert_close(losses[row], made.loss(outputs[row : row + 1], targets[row : row + 1]))


@given(name=st.sampled_from(NAMES), cuts=st.lists(st.integers(1, 23), max_size=4, unique=True), seed=st.integers(0, 99))
def test_scores_do_not_depend_on_the_batches(name: str, cuts: list[int], seed: int) -> None:
    outputs, targets = example(name, seed=seed)
    made = objective(name)

    def tallied(sizes: list[int]) -> dict[str, float]:
        tally = Tally.empty(made, outputs.device)
        for batch, wanted in zip(torch.split(outputs, sizes), torch.split(targets, sizes), strict=True):
            tally.count(batch, wanted)
        return dict(tally.score(len(targets)).metrics)

    edges = [0, *sorted(cuts), len(targets)]
    whole = tallied([len(targets)])
    assert list(whole) == [metric.name for metric in made.metrics]
    assert tallied([b - a for a, b in itertools.pairwise(edges)]) == pytest.approx(whole, rel=1e-12)


def test_a_score_is_counted_afresh_after_it_was_asked_for() -> None:
    outputs, targets = example("cross-entropy")
    tally = Tally.empty(CrossEntropy(), outputs.device)
    tally.count(outputs, targets)
    tally.score(len(targets))
    tally.count(outputs[:1], outputs[:1].argmax(1))
    assert tally.score(1).accuracy == 100


# --- scores


def test_r2_and_errors_are_by_definition() -> None:
    outputs, targets = example("mse")
    made = objective("mse")
    found = made.scores(made.tally(outputs, targets), len(targets))
    residual, deviation = outputs - targets, targets - targets.mean(0)
    assert found["r2"] == pytest.approx(float(1 - residual.square().sum() / deviation.square().sum()), rel=1e-12)
    assert found["rmse"] == pytest.approx(float(residual.square().mean().sqrt()), rel=1e-12)
    assert found["mae"] == pytest.approx(float(residual.abs().mean()), rel=1e-12)


def test_r2_of_targets_that_do_not_vary_is_not_defined() -> None:
    made, targets = objective("mse"), torch.full((7,), 0.1)
    assert math.isnan(made.scores(made.tally(torch.zeros(7, 1), targets), 7)["r2"])


def test_f1_is_that_of_all_labels_together() -> None:
    outputs = torch.tensor([[2.0, -1.0, 3.0], [-1.0, -1.0, 1.0]])
    targets = torch.tensor([[1, 0, 0], [1, 0, 1]])  # two found, one given without being there, one missed
    made = objective("bce")
    found = made.scores(made.tally(outputs, targets), 2)
    assert found == pytest.approx({"f1": 100 * 4 / 6, "accuracy": 100 * 4 / 6, "exact": 0.0})
    assert math.isnan(made.scores(made.tally(-torch.ones(2, 3), torch.zeros(2, 3)), 2)["f1"])


def test_mean_iou_leaves_out_what_does_not_count_and_classes_nobody_sees() -> None:
    targets = torch.tensor([[[0, 0, 1, 255]]])
    given = torch.tensor([[[0, 1, 1, 0]]])
    outputs = functional.one_hot(given, 4).movedim(-1, 1).double()
    made = objective("pixel-cross-entropy", ignore=255)
    found = made.scores(made.tally(outputs, targets), 1)
    assert found == pytest.approx({"mean_iou": 100 * (1 / 2 + 1 / 2) / 2, "accuracy": 100 * 2 / 3})
    counted = functional.cross_entropy(outputs[..., :3], targets[..., :3])
    torch.testing.assert_close(made.loss(outputs, targets), counted)
    smooth = objective("pixel-cross-entropy", ignore=255, label_smoothing=0.2)
    torch.testing.assert_close(
        smooth.loss(outputs, targets), functional.cross_entropy(outputs[..., :3], targets[..., :3], label_smoothing=0.2)
    )


@pytest.mark.parametrize("name", NAMES)
def test_outputs_that_are_not_numbers_are_right_about_nothing(name: str) -> None:
    outputs, targets = example(name)
    made = objective(name)
    found = made.scores(made.tally(torch.full_like(outputs, math.nan), targets), len(targets))
    assert all(value == 0 or math.isnan(value) for value in found.values()), found


# --- derivatives


@pytest.mark.parametrize("name", NAMES)
def test_gauss_newton_of_a_linear_network_is_its_hessian(name: str) -> None:
    outputs, targets = example(name, n=6)
    channels = outputs.shape[1]
    x = torch.randn(6, 2, *outputs.shape[2:], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    model = torch.nn.Conv2d(2, channels, 1).double() if outputs.ndim == 4 else torch.nn.Linear(2, channels).double()
    risk = Risk(model, x, targets, loss=objective(name).loss, batch_size=4)
    vector = torch.randn(risk.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gauss_newton, hessian = (operator(risk) @ vector for operator in (GaussNewtonOperator, HessianOperator))
    torch.testing.assert_close(gauss_newton, hessian, rtol=1e-9, atol=1e-12)
    assert float(vector @ gauss_newton) >= 0


def test_the_risk_of_label_smoothing_is_between_a_label_and_all_of_them() -> None:
    outputs, targets = example("cross-entropy")
    half = objective("cross-entropy", label_smoothing=0.5)
    everything = -outputs.log_softmax(1).mean(1).mean()
    torch.testing.assert_close(half.loss(outputs, targets), (functional.cross_entropy(outputs, targets) + everything) / 2)


# --- what is refused


def data(targets: torch.Tensor, classes: int, made: AbstractObjective) -> TensorData:
    x = torch.zeros(len(targets), 1, 5)
    return TensorData(name="d", x_train=x, y_train=targets, x_test=x, y_test=targets, classes=classes, objective=made)


@pytest.mark.parametrize(
    ("name", "targets", "classes", "message"),
    [
        ("mse", torch.zeros(4, dtype=torch.int64), 2, r"targets are int64 \(4,\), expected floating point"),
        ("mse", torch.tensor([0.0, math.inf]), 0, "some targets are not finite"),
        ("mse", torch.zeros(4, 0), 0, "holds nothing"),
        ("bce", torch.zeros(4), 0, r"targets are float32 \(4,\), expected \[n, labels\]"),
        ("bce", torch.tensor([[0, 2]]), 0, "targets go from 0 to 2, expected"),
        ("bce", torch.tensor([[0.0, math.nan]]), 0, "targets go from nan to nan"),
        ("pixel-cross-entropy", torch.zeros(4, dtype=torch.int64), 2, "expected int64"),
        ("pixel-cross-entropy", torch.full((4, 5), -100), 2, "no position counts"),
        ("pixel-cross-entropy", torch.tensor([[0, 1, 255]]), 2, "0 to 255, expected 0 to 1; if 255 marks .*-ignore 255"),
        ("cross-entropy", torch.zeros(4), 2, "targets of a regression"),
        ("cross-entropy", torch.zeros(4, dtype=torch.int64), 0, "0 class, expected at least 2"),
    ],
)
def test_targets_of_another_kind_are_refused(name: str, targets: torch.Tensor, classes: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data(targets, classes, objective(name)).check()


@pytest.mark.parametrize(
    ("name", "classes", "shape"),
    [("cross-entropy", 4, (4,)), ("mse", 0, (3,)), ("bce", 0, (5,)), ("pixel-cross-entropy", 3, (3, 4, 5))],
)
def test_networks_are_built_for_the_targets(name: str, classes: int, shape: tuple[int, ...]) -> None:
    found = data(example(name)[1], classes, objective(name))
    found.check()
    assert found.output_shape == shape


def test_a_label_that_does_not_count_is_no_class() -> None:
    """A loader that sees 0 to 2 and 255 takes them for 256 classes."""
    found = data(torch.tensor([[0, 2, 255], [1, 255, 255]]), 256, objective("pixel-cross-entropy", ignore=255))
    found.check()
    assert found.output_shape == (3, 3)


def test_one_number_for_each_sample_needs_no_axis_of_its_own() -> None:
    found = data(torch.rand(4), 0, objective("mse"))
    assert found.output_shape == (1,)
    torch.testing.assert_close(found.objective.loss(torch.zeros(4, 1), found.y_train), found.y_train.square().mean())


@pytest.mark.parametrize("name", NAMES)
def test_outputs_of_another_shape_are_refused(name: str) -> None:
    outputs, targets = example(name)

    class Given(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return outputs[: len(x), ..., None]

    with pytest.raises(
        ConfigError, match=r"the network Given gives \(24, .*\) for 24 inputs in evaluation mode, expected a tensor of \(24, "
    ):
        evaluate(Given(), torch.zeros(24, 1), targets, objective=objective(name))
