"""A wrong data set is found, and what to mend is said.

Each test breaks a correct component in one place and runs the one check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

from anarch_core.data import TensorData
from anarch_core.testing import DatasetConformance

Kit = Callable[..., Any]


def tensors(**changed: Any) -> Callable[..., TensorData]:
    """A target that gives data with some fields replaced."""

    def load(root: Path | None, options: Any) -> TensorData:
        x = torch.randn(12, 1, 8, generator=torch.Generator().manual_seed(0))
        y = torch.arange(12) % 3
        data = TensorData(name="wrong", x_train=x, y_train=y, x_test=x.clone(), y_test=y.clone(), classes=3)
        return attrs.evolve(data, **{name: value(data) for name, value in changed.items()})

    return load


@pytest.mark.parametrize(
    ("target", "record", "check", "message"),
    [
        (tensors(y_train=lambda data: data.y_train + 1), {}, "test_can_be_trained_on", "labels go from 1 to 3, expected 0 to 2"),
        (tensors(classes=lambda data: 5), {}, "test_can_be_trained_on", "no training sample is of class 3, 4"),
        (
            tensors(x_train=lambda data: data.x_train * 80 + 128),
            {},
            "test_inputs_are_normalised",
            "normalise them, e.g. with channel_statistics",
        ),
        (
            tensors(x_train=lambda data: torch.randn(12, 1, 8)),
            {},
            "test_is_the_same_every_time",
            "loading changes the random state of torch",
        ),
        (tensors(name=lambda data: "other"), {}, "test_names_are_right", "call themselves 'other', the record 'wrong'"),
        (tensors(), {"defaults": {"epoch": 3}}, "test_defaults_are_settings", "`defaults` sets epoch; it may set"),
        (tensors(), {"defaults": {"model": "cnn2d"}}, "test_defaults_are_settings", "unknown model 'cnn2d'; did you mean 'cnn1d'"),
        (tensors(), {"defaults": {"model": "resnet20"}}, "test_default_model_takes_the_data", "resnet20 takes images"),
    ],
)
def test_a_wrong_data_set(fails: Kit, plugin: Kit, target: Any, record: Any, check: str, message: str) -> None:
    plugin("dataset", target, **record)
    fails(DatasetConformance, check, message)


def test_missing_data_that_raise_anything(fails: Kit, plugin: Kit, tmp_path: Path) -> None:
    plugin("dataset", lambda root, options: (root / "x.npy").read_bytes())
    fails(DatasetConformance, "test_missing_data_are_told_in_one_line", "raised FileNotFoundError.*; raise DataError", tmp_path)
