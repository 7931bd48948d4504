"""Inputs that are read a batch at a time: the same bytes as if they were all in memory, in the same order, and no more memory than that."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from anarch_core.data import Stored, TensorData, channel_statistics, normalised
from anarch_core.data.gathering import as_tensor
from anarch_core.data.stored import batches
from anarch_core.machine import give_back

BYTES = torch.randint(0, 256, (3000, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def stored() -> Stored:
    return Stored(BYTES, *channel_statistics(BYTES))


def whole() -> torch.Tensor:
    return normalised(BYTES, *channel_statistics(BYTES))


def data(x: torch.Tensor | Stored) -> TensorData:
    y = torch.arange(3000) % 7
    return TensorData(name="bytes", x_train=x, y_train=y, x_test=x, y_test=y, classes=7)


def test_every_batch_is_what_normalising_everything_gives_to_the_last_bit() -> None:
    rows = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(stored().whole(), whole())
    assert torch.equal(stored()[rows[:100]], whole()[rows[:100]])
    assert torch.equal(torch.cat(list(stored().batches(rows.split(250)))), whole()[rows])
    assert torch.equal(torch.cat(list(batches(stored(), [slice(0, 1700), slice(1700, 3400)]))), whole())
    assert torch.equal(stored().to(dtype=torch.float64)[5:9], whole()[5:9].double())
    assert stored().shape == whole().shape


def test_a_data_set_of_them_is_the_same_data_set() -> None:
    far, near = data(stored()), data(whole())
    far.check()
    assert far.digest() == near.digest()
    assert torch.equal(far.x_train, near.x_train)
    for one, other in (
        (far.limited(99), near.limited(99)),
        (far.with_validation(0.2, 1).limited(50), near.with_validation(0.2, 1).limited(50)),
    ):
        assert isinstance(one.inputs("train"), Stored)
        assert one.digest() == other.digest() == one.whole().digest()
        assert torch.equal(one.x_train, other.x_train)
    assert far.to(dtype=torch.float64).digest() == near.to(dtype=torch.float64).digest()
    assert near.kept_on_host().digest() == near.digest()


def test_floats_that_are_not_finite_are_found() -> None:
    from anarch_core.errors import DataError

    with pytest.raises(DataError, match="not finite"):
        data(Stored(torch.where(torch.arange(3000).view(-1, 1, 1) == 2999, torch.nan, torch.ones(3000, 1, 4)))).check()


def test_whoever_stops_early_leaves_no_thread() -> None:
    before = threading.active_count()
    reading = stored().batches(torch.arange(3000).split(10))
    next(reading)
    assert threading.active_count() == before + 1
    reading.close()
    assert threading.active_count() == before


def test_what_goes_wrong_while_reading_is_told_where_the_batch_is_waited_for() -> None:
    reading = stored().batches([torch.tensor([0, 1]), torch.tensor([3000])])
    assert len(next(reading)) == 2
    with pytest.raises(IndexError):
        next(reading)
    assert not [thread for thread in threading.enumerate() if thread.name == "batches"]


def test_a_mapped_file_is_read_by_batches_and_takes_no_memory_of_its_own(tmp_path: Path) -> None:
    file = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (40_000, 3, 20, 20))
    file[:] = np.arange(20, dtype=np.uint8)
    file.flush()
    del file
    source = as_tensor("x", np.load(tmp_path / "x.npy", mmap_mode="r"))

    def own() -> int:
        """Bytes of memory that are not pages of the file, which the system takes back when it needs them."""
        give_back()
        used = psutil.Process().memory_info()
        return used.rss - used.shared

    before = own()
    x = Stored(source, *channel_statistics(source))
    total = 0.0
    for batch in x.batches(torch.arange(40_000).split(500)):
        total += float(batch.sum())
    assert abs(total) < 100
    assert own() - before < 25e6 < x.nbytes / 7  # 192 MB as numbers, 48 MB as bytes


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_on_a_cuda_device_are_those_of_all_inputs_there() -> None:
    rows = torch.randperm(3000, generator=torch.Generator().manual_seed(1)).split(250)
    there = stored().to("cuda")
    assert torch.equal(torch.cat(list(there.batches(rows))).cpu(), whole()[torch.cat(rows)])
    assert torch.equal(there.whole().cpu(), whole())
