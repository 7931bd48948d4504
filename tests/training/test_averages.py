"""Averages of weights against sums written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.errors import CheckpointError
from anarch_core.training.averages import RunningAverage, statistics_anew

WAY = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def network() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.BatchNorm1d(1)).double()
    model.register_buffer("table", torch.arange(3))
    return model


def walk(model: nn.Module, average: RunningAverage, *, since: int = 0, per_epoch: int = 3) -> None:
    """Let the weights go a way of twelve steps."""
    for step, weights in enumerate(WAY[since:], since + 1):
        with torch.no_grad():
            model[0].weight.copy_(weights)
            model[1].running_mean.fill_(step)
        model[1].num_batches_tracked += 1
        average.after_step(step)
        if step % per_epoch == 0:
            average.after_epoch(step)


def test_an_exponential_average_weighs_each_step_by_how_long_ago_it_was():
    model = network()
    average = RunningAverage(model, "ema", 0.8, 12)
    walk(model, average)
    average.put_into_network()
    weights = torch.tensor([0.8**age for age in range(11, -1, -1)], dtype=torch.float64)
    weights /= weights.sum()
    torch.testing.assert_close(model[0].weight[0], weights @ WAY, rtol=1e-12, atol=0)
    torch.testing.assert_close(model[1].running_mean[0], weights @ torch.arange(1, 13, dtype=torch.float64), rtol=1e-12, atol=0)
    assert model[1].num_batches_tracked == 12
    assert model.table.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("since", "steps"), [(0.0, [3, 6, 9, 12]), (0.5, [6, 9, 12]), (0.6, [9, 12]), (0.99, [12])])
def test_an_equal_average_is_the_mean_of_the_ends_of_epochs_from_its_share_on(since, steps):
    model = network()
    average = RunningAverage(model, "swa", since, 12)
    walk(model, average)
    assert average.count == len(steps)
    average.put_into_network()
    torch.testing.assert_close(model[0].weight[0], torch.stack([WAY[step - 1] for step in steps]).mean(0), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", ["ema", "swa"])
@pytest.mark.parametrize("halt", [1, 5, 9])
def test_goes_on_from_its_state_to_the_same_bits(kind, halt):
    model, other = network(), network()
    whole, first, second = (RunningAverage(each, kind, 0.5, 12) for each in (model, other, other))
    walk(model, whole)
    for step in range(1, halt + 1):
        other[0].weight.data.copy_(WAY[step - 1])
        other[1].running_mean.fill_(step)
        first.after_step(step)
        if step % 3 == 0:
            first.after_epoch(step)
    second.load_state({name: tensor.clone() for name, tensor in first.state().items()}, first.count)
    walk(other, second, since=halt)
    assert second.count == whole.count
    for name, tensor in whole.state().items():
        assert torch.equal(tensor, second.state()[name]), name


def test_holds_nothing_before_its_first_moment():
    average = RunningAverage(network(), "swa", 0.5, 12)
    average.after_epoch(3)
    assert average.state() == {}
    average.after_epoch(6)
    assert set(average.state()) == {f"average.{name}" for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")}


def test_refuses_the_average_of_another_network():
    average = RunningAverage(network(), "ema", 0.5, 12)
    with pytest.raises(CheckpointError, match=r"0\.weight, 1\.bias"):
        average.load_state({"average.1.running_mean": torch.zeros(1)}, 3)


def test_statistics_anew_are_those_of_all_batches_alike():
    model = nn.Sequential(nn.BatchNorm1d(3, momentum=0.5), nn.Dropout(0.5), nn.BatchNorm1d(3))
    model[2].eval()
    model[0].running_mean.fill_(7.0)
    batches = torch.randn(4, 10, 3)
    with statistics_anew(model) as any_statistics, torch.no_grad():
        assert any_statistics
        for batch in batches:
            model(batch)
    torch.testing.assert_close(model[0].running_mean, batches.mean((0, 1)))
    torch.testing.assert_close(model[0].running_var, batches.var(1).mean(0))
    assert model[0].momentum == 0.5
    assert model[2].running_mean.tolist() == [0, 0, 0]  # frozen by its owner
    assert [module.training for module in model] == [True, True, False]
