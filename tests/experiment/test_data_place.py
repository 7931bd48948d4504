"""Where inputs are kept: on the device, unless they would take more than half of what is free there."""

from __future__ import annotations

import attrs
import pytest
import torch

from anarch_core.config.run_config import RunConfig
from anarch_core.data import Stored, TensorData
from anarch_core.errors import OutOfMemoryError
from anarch_core.experiment import context
from anarch_core.experiment.context import _placed

CPU = torch.device("cpu")


def bytes_of_images() -> TensorData:
    """120 numbers, 480 bytes as floats, for each of two parts."""
    x = Stored(torch.zeros(10, 1, 12, dtype=torch.uint8), torch.zeros(1), torch.ones(1))
    return TensorData(name="bytes", x_train=x, y_train=torch.arange(10), x_test=x, y_test=torch.arange(10), classes=10)


@pytest.mark.parametrize(
    ("place", "free", "host"), [("auto", 1920, False), ("auto", 1919, True), ("host", 10**9, True), ("device", 1000, False)]
)
def test_inputs_are_on_the_device_where_they_fit(place: str, free: int, host: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "available_bytes", lambda device: free)
    data = _placed(bytes_of_images(), RunConfig(device="cpu", data_on=place, control="none"))
    assert isinstance(data.inputs("train"), Stored) == isinstance(data.inputs("test"), Stored) == host


def test_tensors_that_are_in_the_host_s_memory_need_no_more_of_it_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "available_bytes", lambda device: 0)
    data = _placed(bytes_of_images().whole(), RunConfig(device="cpu", control="none"))
    assert isinstance(data.inputs("train"), torch.Tensor)


def test_a_whole_part_that_does_not_fit_is_refused_with_the_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anarch_core.data.tensor_data.available_bytes", lambda device: 100)
    data = bytes_of_images()
    with pytest.raises(OutOfMemoryError, match=r"data 'bytes': all of x_train, 480 B, do not fit into the 100 B that are free on cpu"):
        _ = data.x_train
    assert data.inputs("train")[:2].shape == (2, 1, 12)
    assert attrs.evolve(data, name="other").inputs("test").shape == (10, 1, 12)
