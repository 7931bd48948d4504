"""MNIST-1D as tensors."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from mnist1d import data as package

from anarch_core.data import TensorData, load_data
from anarch_plugins.datasets.mnist1d.dataset import _global_random_state_kept


@pytest.fixture(scope="module")
def data() -> TensorData:
    return load_data("mnist1d")


def test_shapes_and_types(data: TensorData) -> None:
    assert data.x_train.shape == (4000, 1, 40)
    assert data.x_test.shape == (1000, 1, 40)
    assert data.x_train.dtype == torch.float32
    assert data.input_shape == (1, 40)
    assert data.classes == len(data.class_names) == 10


def test_classes_are_balanced(data: TensorData) -> None:
    assert torch.bincount(torch.cat([data.y_train, data.y_test])).tolist() == [500] * 10


def test_signals_are_centred_and_scaled(data: TensorData) -> None:
    signals = torch.cat([data.x_train, data.x_test])
    torch.testing.assert_close(signals.mean(), torch.tensor(0.0), atol=1e-5, rtol=0)
    torch.testing.assert_close(signals.std(correction=0), torch.tensor(1.0), atol=1e-5, rtol=0)


def test_same_data_every_time_whatever_the_random_states_which_are_left_alone(data: TensorData) -> None:
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), np.random.rand()
    random.seed(5)
    np.random.seed(5)
    assert load_data("mnist1d").digest() == data.digest()
    assert (random.random(), np.random.rand()) == expected


def test_signals_are_those_of_the_package_to_the_bit(data: TensorData) -> None:
    with _global_random_state_kept():
        arrays = package.make_dataset(package.get_dataset_args())
    assert torch.equal(data.x_train[:, 0], torch.from_numpy(arrays["x"]).float())
    assert torch.equal(data.x_test[:, 0], torch.from_numpy(arrays["x_test"]).float())
