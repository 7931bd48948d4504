"""Data are seen to be data of classes before anything is measured on them, and networks that look at the batch are told of."""

from __future__ import annotations

import warnings

import attrs
import pytest
import torch
from torch import nn

from anarch_core.data import TensorData
from anarch_core.errors import ConfigError, DataError
from anarch_core.paths.interpolation import interpolate
from anarch_core.probe.base import AbstractProbe, Measurement, ProbeContext
from anarch_core.probe.measuring import measured
from anarch_core.training.evaluation import evaluate


class Nothing(AbstractProbe):
    def measure(self, context):
        return Measurement(scalars={}, units={})


def make_data(n=12):
    x = torch.randn(n, 1, 4, generator=torch.Generator().manual_seed(0))
    return TensorData(name="d", x_train=x, y_train=torch.arange(n) % 3, x_test=x[:6], y_test=torch.arange(6) % 3, classes=3)


def network(outputs=3, **norm):
    return nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2, **norm), nn.Flatten(), nn.Linear(4, outputs)).eval()


UNFIT = (
    ({"y_train": torch.zeros(12, 4, dtype=torch.int64)}, "a row of targets"),
    ({"y_train": torch.zeros(12, 4, 4, dtype=torch.int64)}, "as for segmentation"),
    ({"y_test": torch.rand(6)}, "targets of a regression"),
    ({"x_train": torch.full((12, 1, 4), torch.nan)}, "not finite"),
)


@pytest.mark.parametrize(("changes", "message"), UNFIT)
def test_other_data_are_refused_before_a_probe_and_before_a_path(changes, message):
    data = attrs.evolve(make_data(), **changes)
    with pytest.raises(DataError, match=message):
        measured(Nothing(None), ProbeContext(model=network(), data=data))
    with pytest.raises(DataError, match=message):
        interpolate(network(), network(), data)


@pytest.mark.parametrize(
    "measure",
    [
        lambda net: measured(Nothing(None), ProbeContext(model=net, data=make_data())),
        lambda net: interpolate(net, net, make_data(), points=3),
    ],
)
def test_batch_norm_without_running_statistics_is_said_once(measure):
    net = network(track_running_stats=False)
    with pytest.warns(UserWarning, match="outputs depend on the batch: 1, without running statistics") as told:
        measure(net)
    assert len({str(warning.message) for warning in told}) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(network())


def test_a_network_of_fewer_classes_than_there_are_is_refused():
    data = make_data()
    with pytest.raises(ConfigError, match="labels go up to 2, but the network tells only 2 classes apart"):
        evaluate(network(2), data.x_test, data.y_test)


def test_a_barrier_through_nan_is_none_and_says_why():
    broken = network()
    with torch.no_grad():
        broken[3].weight.fill_(torch.nan)
    profile = interpolate(network(), broken, make_data(), points=3)
    for barrier in (profile.train_barrier, profile.test_barrier):
        assert (barrier.excess, barrier.chord, barrier.mean) == (None, None, None)
        assert "not finite at 2 of 3 points" in barrier.not_measured
