"""Data held as tensors: limits, held-out parts, batch orders, normalisation, and what is refused."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anarch_core.data import TensorData, channel_statistics, load_data, normalised
from anarch_core.data.order import epoch_order
from anarch_core.errors import DataError, OptionError, UnknownComponentError


def make_data(n: int = 40, classes: int = 4) -> TensorData:
    """Every input holds the number of its sample, so that tests can see where it went."""
    x = torch.arange(n, dtype=torch.float32).view(n, 1, 1).expand(n, 2, 3).contiguous()
    y = (torch.arange(n) * 7 // 3) % classes
    return TensorData(name="numbers", x_train=x, y_train=y, x_test=x[:classes], y_test=torch.arange(classes), classes=classes)


def numbers(x: torch.Tensor) -> list[int]:
    return x[:, 0, 0].int().tolist()


# --- batch order


@given(n=st.integers(1, 200), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_epoch_order_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    assert epoch_order(n, seed, epoch).sort().values.tolist() == list(range(n))


def test_epoch_order_depends_on_its_arguments_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = epoch_order(100, seed=3, epoch=5)
    torch.manual_seed(2)
    assert torch.equal(first, epoch_order(100, seed=3, epoch=5))
    torch.set_rng_state(before)
    epoch_order(100, seed=3, epoch=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_epoch_order_is_pinned() -> None:
    """A change here would make a resumed run differ from the one that was cut off."""
    assert epoch_order(8, seed=0, epoch=0).tolist() == [6, 5, 0, 2, 3, 7, 1, 4]


def test_epoch_orders_differ_between_seeds_and_epochs() -> None:
    orders = {tuple(epoch_order(50, seed, epoch).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


# --- limits


def test_a_validation_part_of_ones_own_is_kept() -> None:
    data = make_data().with_validation(5, seed=0)
    with pytest.raises(DataError, match="data 'numbers' have a validation part of 5 samples; leave out --validation, or that part"):
        data.with_validation(5, seed=0)


@given(n=st.integers(1, 60), classes=st.integers(2, 5))
def test_limited_is_balanced_nested_and_in_order(n: int, classes: int) -> None:
    data = make_data(40, classes)
    limited = data.limited(n)
    assert len(limited.y_train) == min(n, 40)
    assert numbers(limited.x_train) == sorted(numbers(limited.x_train))
    assert set(numbers(limited.x_train)) <= set(numbers(data.limited(n + 1).x_train))
    counts, available = (torch.bincount(y, minlength=classes) for y in (limited.y_train, data.y_train))
    assert all(count >= min(counts.max() - 1, whole) for count, whole in zip(counts, available, strict=True))


def test_limited_takes_the_first_of_each_class() -> None:
    data = attrs.evolve(make_data(6, 2), y_train=torch.tensor([0, 0, 0, 0, 1, 1]))
    assert numbers(data.limited(2).x_train) == [0, 4]
    assert numbers(data.limited(5).x_train) == [0, 1, 2, 4, 5]


def test_limited_keeps_inputs_and_labels_together() -> None:
    data = make_data()
    limited = data.limited(13)
    assert torch.equal(limited.y_train, data.y_train[torch.tensor(numbers(limited.x_train))])


def test_limited_leaves_the_test_set_alone() -> None:
    data = make_data()
    assert data.limited(3).x_test is data.x_test


@pytest.mark.parametrize("n", [0, -1])
def test_limit_must_be_positive(n: int) -> None:
    with pytest.raises(DataError, match=rf"at least 1: {n}"):
        make_data().limited(n)


# --- held-out part


@pytest.mark.parametrize(("size", "count"), [(10, 10), (0.25, 10), (0.1, 4)])
def test_validation_is_split_off_the_training_set(size: float, count: int) -> None:
    data = make_data().with_validation(size, seed=0)
    assert data.x_validation is not None
    assert data.y_validation is not None
    held, kept = numbers(data.x_validation), numbers(data.x_train)
    assert len(held) == count
    assert sorted(held + kept) == list(range(40))
    assert torch.equal(data.y_validation, make_data().y_train[torch.tensor(held)])


def test_validation_is_a_function_of_the_seed() -> None:
    first, again, other = (make_data().with_validation(10, seed).x_validation for seed in (0, 0, 1))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("size", [0, 40, 41, -1, 0.0, 1.0, 1.5])
def test_validation_must_leave_something_on_both_sides(size: float) -> None:
    with pytest.raises(DataError, match="of 40 training samples"):
        make_data().with_validation(size, seed=0)


# --- devices, types, identity


def test_to_changes_the_type_of_inputs_only() -> None:
    data = make_data().with_validation(5, seed=0).to("cpu", torch.float64)
    assert data.x_train.dtype == data.x_test.dtype == torch.float64
    assert data.x_validation is not None
    assert data.x_validation.dtype == torch.float64
    assert data.y_train.dtype == torch.int64


def test_digest_changes_with_any_value() -> None:
    data = make_data()
    changed = attrs.evolve(data, y_train=data.y_train.roll(1))
    assert data.digest() == make_data().digest()
    assert data.digest() != changed.digest()
    assert data.digest() != data.to(dtype=torch.float64).digest()


# --- normalisation


@given(n=st.integers(2, 3000), channels=st.integers(1, 3), seed=st.integers(0, 1000))
def test_normalised_images_have_mean_0_and_deviation_1_per_channel(n: int, channels: int, seed: int) -> None:
    x = torch.randint(0, 256, (n, channels, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    mean, deviation = channel_statistics(x)
    assert all(map(torch.equal, (mean, deviation), channel_statistics(x.int())))  # bytes are counted, other numbers summed
    torch.testing.assert_close(mean, x.double().mean((0, 2, 3)))
    torch.testing.assert_close(deviation, x.double().std((0, 2, 3), correction=0))
    y = normalised(x, mean, deviation)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(channels), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std((0, 2, 3), correction=0), torch.ones(channels), atol=1e-5, rtol=0)


def test_a_constant_channel_becomes_zero() -> None:
    x = torch.full((5, 1, 4), 7, dtype=torch.uint8)
    assert not normalised(x, *channel_statistics(x)).any()


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"x_train": torch.zeros(40, 2, 3, dtype=torch.int64)},
            r"train part: inputs are int64 \(40, 2, 3\), expected floating point",
        ),
        ({"y_train": torch.zeros(40)}, r"train part: labels are float32 \(40,\), targets of a regression, .*, expected int64 \[n\]"),
        ({"y_train": torch.zeros(40, 4, 4).long()}, r"labels are int64 \(40, 4, 4\), a class for every position, as for segmentation"),
        ({"y_train": torch.eye(40)}, r"labels are float32 \(40, 40\), one-hot, of which y.argmax\(1\) makes class numbers"),
        ({"y_train": torch.rand(40, 3)}, r"labels are float32 \(40, 3\), a row of targets for each sample"),
        ({"y_train": torch.zeros(40, 1).long()}, r"with an axis too many, which y.squeeze\(1\) takes away"),
        ({"y_train": list(range(40))}, "targets a list, expected ordinary tensors"),
        ({"x_train": torch.zeros(40, 0, 3), "x_test": torch.zeros(4, 0, 3)}, "which holds nothing"),
        ({"y_train": torch.zeros(39, dtype=torch.int64)}, "40 inputs and 39 targets"),
        ({"x_test": torch.zeros(4, 2, 5)}, r"test part: inputs of shape \(2, 5\), but the training inputs are \(2, 3\)"),
        ({"y_test": torch.tensor([0, 1, 2, 4])}, "test part: labels go from 0 to 4, expected 0 to 3"),
        ({"y_test": torch.tensor([0, -1, 2, 3])}, "labels go from -1 to 3"),
        ({"y_test": torch.tensor([1, 2, 3, 4])}, "from 1 to 4, expected 0 to 3; they seem to be counted from 1"),
        ({"x_test": torch.full((4, 2, 3), torch.nan)}, "not finite"),
        ({"class_names": ("a",)}, r"class_names \('a'\) for 4 classes, expected a name for each"),
        ({"class_names": 7}, "class_names 7 for 4 classes"),
        ({"classes": "4"}, "classes = '4', expected a whole number"),
        ({"x_test": torch.zeros(4, 2, 3).to_sparse()}, "neither sparse nor meta"),
        ({"classes": 1}, "1 class, expected at least 2"),
        ({"x_validation": torch.zeros(1, 2, 3)}, "together or not at all"),
    ],
)
def test_unfit_data_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        attrs.evolve(make_data(), **changes).check()


def test_fit_data_are_not_refused() -> None:
    make_data().with_validation(5, seed=0).check()


# --- loading by name


@pytest.mark.usefixtures("mnist1d")
def test_load_data_holds_out_before_it_limits() -> None:
    """What is held out does not depend on the limit, and the limit is the number of samples trained on."""
    whole = load_data("mnist1d", validation=0.25, seed=1)
    limited = load_data("mnist1d", validation=0.25, limit=100, seed=1)
    assert len(limited.y_train) == 100
    assert whole.x_validation is not None
    assert limited.x_validation is not None
    assert torch.equal(whole.x_validation, limited.x_validation)


def test_load_data_names_what_is_close(tmp_path: Path) -> None:
    with pytest.raises(UnknownComponentError, match="cifar10"):
        load_data("cifar11", root=tmp_path)


def test_load_data_refuses_unknown_options() -> None:
    with pytest.raises(OptionError, match="sizes"):
        load_data("image-folder", options={"sizes": 3})
