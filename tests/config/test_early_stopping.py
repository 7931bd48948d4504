from __future__ import annotations

import pytest

from anarch_core.config.early_stopping import EarlyStopping
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError

SCORES = {"loss": False, "accuracy": True, "rmse": False}


def reason(rule: str, **scores: list[float | None]) -> str | None:
    rule = EarlyStopping.parse(rule)
    columns = {f"validation_{name}": values for name, values in scores.items()}
    length = len(next(iter(columns.values())))
    rows = [{"epoch": row + 1, **{name: values[row] for name, values in columns.items()}} for row in range(length)]
    return rule.reason(rows, higher_is_better=rule.higher_is_better(SCORES))


def test_ends_when_a_loss_has_not_fallen_for_so_many_epochs():
    assert reason("2", loss=[3.0, 1.0, 2.0]) is None
    assert reason("2", loss=[3.0, 1.0, 2.0, 1.0]) == "validation_loss has not improved for 2 epochs (best 1 in epoch 2)"
    assert reason("2", loss=[3.0, 1.0, 2.0, 0.999]) is None
    assert reason("1", loss=[0.31415926, 2.0]) == "validation_loss has not improved for an epoch (best 0.3142 in epoch 1)"


def test_ends_when_an_accuracy_has_not_risen():
    assert reason("validation_accuracy:2", accuracy=[10.0, 20.0, 20.0]) is None
    assert "best 20 in epoch 2" in reason("validation_accuracy:2", accuracy=[10.0, 20.0, 20.0, 15.0])


def test_follows_the_direction_of_any_score():
    assert "best 1 in epoch 2" in reason("validation_rmse:1", rmse=[2.0, 1.0, 3.0])
    assert reason("validation_rmse:1", rmse=[2.0, 1.0]) is None


def test_a_score_that_the_objective_does_not_give_is_refused():
    with pytest.raises(
        ConfigError, match=r"stop_early: 'validation_f1' is not known of an epoch; take one of validation_loss, .*train_rmse"
    ):
        EarlyStopping.parse("validation_f1:3").higher_is_better(SCORES)


def test_what_is_not_finite_is_no_improvement():
    assert reason("2", loss=[None, None]) == "validation_loss has not improved for 2 epochs"
    assert reason("2", loss=[None, 5.0, None]) is None


def test_no_epochs_are_no_reason():
    assert EarlyStopping.parse("1").reason([], higher_is_better=False) is None


@pytest.mark.parametrize("value", ["10", 10, " 10", "validation_loss:10", "validation_loss : 10"])
def test_epochs_alone_are_of_the_validation_loss(value):
    config = RunConfig(stop_early=value, validation=0.1)
    assert config.early_stopping == EarlyStopping("validation_loss", 10)
    assert config.stop_early == "validation_loss:10"


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("0", "expected epochs without improvement"),
        (0, "expected a whole number from 1 to 1,000,000, got 0"),
        (10**30, "expected a whole number"),
        ("-3", "expected epochs without improvement, as in '10' or 'validation_accuracy:10', from 1 to 1,000,000"),
        ("ten", "expected epochs without improvement"),
        ("loss:3", "'loss' is no score of a part of the data; write 'validation_loss:3', or 'train_loss:3'"),
        ("validation_:3", "no score of a part"),
        ("test_loss:3", "test_loss is of the test set, which is only reported and decides nothing; take 'validation_loss:3'"),
        ("test_accuracy:3", "take 'validation_accuracy:3'"),
        ("9999999", "expected epochs"),
        ("9" * 5000, "expected"),
        (True, "expected a text"),
        (2.5, "expected a text"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(value, why):
    with pytest.raises(ConfigError, match=f"^stop_early: .*{why}") as caught:
        RunConfig(stop_early=value, validation=0.1)
    assert len(str(caught.value)) < 250


def test_a_validation_score_needs_a_validation_part():
    with pytest.raises(ConfigError, match=r"add validation, as in --validation 0.1, or let the training decide, 'train_loss:3'"):
        RunConfig(stop_early=3)
    assert RunConfig(stop_early="train_loss:3").early_stopping == EarlyStopping("train_loss", 3)
