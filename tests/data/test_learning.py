"""Data and objective brought together: what a data set says of itself is not passed over, and who takes its targets is said."""

from __future__ import annotations

import pytest
import torch

from anarch_core.data import TensorData, load_data
from anarch_core.data.learning import with_objective
from anarch_core.errors import DataError
from anarch_core.objective import AbstractObjective
from anarch_core.plugin import get_registry

X = torch.randn(8, 1, 6, generator=torch.Generator().manual_seed(0))
LEARNT_BY = {
    "numbers": (X.mean((1, 2)), 0),
    "labels": ((X[:, 0, :3] > 0).long(), 2),
    "positions": ((X[:, 0] > 0).long(), 2),
}


def objective(name: str, **options: object) -> AbstractObjective:
    made: AbstractObjective = get_registry().create("objective", name, options)
    return made


def data(kind: str = "numbers", learnt_by: AbstractObjective | None = None) -> TensorData:
    y, classes = LEARNT_BY[kind]
    given = {} if learnt_by is None else {"objective": learnt_by}
    return TensorData(name=kind, x_train=X, y_train=y, x_test=X, y_test=y, classes=classes, **given)  # type: ignore[arg-type]


def numbers() -> TensorData:
    return data()


def positions() -> TensorData:
    return data("positions")


def test_data_that_say_nothing_are_learnt_by_what_the_run_says() -> None:
    mse = objective("mse")
    assert with_objective(data(), mse, get_registry()).objective is mse


def test_data_that_say_the_same_are_left_alone() -> None:
    own = objective("cross-entropy", label_smoothing=0.1)
    found = with_objective(data(learnt_by=own), objective("cross-entropy", label_smoothing=0.1), get_registry())
    assert found.objective is own


def test_data_that_say_something_else_are_refused() -> None:
    own = objective("cross-entropy", label_smoothing=0.1)
    with pytest.raises(
        DataError, match=r"to be learnt by CrossEntropy \(.*0.1.*\), and the run is set to CrossEntropy .*--objective cross"
    ):
        with_objective(data(learnt_by=own), objective("cross-entropy"), get_registry())


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("numbers", "; such targets are learnt by --objective mse$"),
        ("positions", "; such targets are learnt by --objective bce or pixel-cross-entropy$"),
    ],
)
def test_who_takes_the_targets_is_said(kind: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_data(f"{__name__}:{kind}")
