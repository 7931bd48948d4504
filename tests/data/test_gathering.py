"""Data as people have them become one data set of tensors; what is unlike the rest is refused with its index."""

from __future__ import annotations

import random
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset, Subset, TensorDataset

from anarch_core.data import TensorData, load_data
from anarch_core.data.gathering import gathered
from anarch_core.errors import ConfigError, DataError

X = torch.randn(30, 1, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(30) % 3
PART = (X, Y)


@attrs.define
class Items(Dataset):  # type: ignore[type-arg]
    """A map-style data set of a list."""

    items: list[Any]
    classes: Any = None

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def pictures(mode: str = "RGB", count: int = 12) -> list[tuple[Image.Image, int]]:
    noise = np.random.default_rng(0).integers(0, 256, (count, 6, 9, 3), dtype=np.uint8)
    return [(Image.fromarray(pixels).convert(mode), index % 3) for index, pixels in enumerate(noise)]


@pytest.mark.parametrize(
    "given",
    [
        (PART, PART),
        [PART, PART],
        (PART, PART, PART),
        {"train": PART, "test": PART},
        {"train": PART, "val": PART, "test": PART, "unlabelled": 3},
        ((X.numpy(), Y.numpy()), (X.numpy(), Y.numpy())),
        (TensorDataset(X, Y), Subset(TensorDataset(X, Y), range(30))),
        (Items([{"signal": x.numpy(), "label": int(y)} for x, y in zip(X, Y, strict=True)]), PART),
        (Items([(x.tolist(), y) for x, y in zip(X.double(), Y, strict=True)]), PART),
    ],
    ids=["pair", "list", "triple", "mapping", "names", "arrays", "datasets", "dicts", "lists"],
)
def test_what_a_factory_may_give(given: Any) -> None:
    data = gathered("mine", given)
    data.check()
    assert torch.allclose(data.x_train, X)
    assert torch.equal(data.y_train, Y)
    assert torch.equal(data.x_test, X)
    assert (data.name, data.classes) == ("mine", 3)
    assert (data.x_validation is not None) == ((isinstance(given, tuple) and len(given) == 3) or "val" in given)


def test_tensor_data_are_taken_as_they_are() -> None:
    data = TensorData(name="own", x_train=X, y_train=Y, x_test=X, y_test=Y, classes=3)
    assert gathered("mine", data) is data


def test_targets_of_any_objective_pass_unharmed() -> None:
    for y in (X.mean(2), (X[:, 0] > 0), X.double()[:, 0, 0], torch.randint(0, 4, (30, 5, 5))):
        data = gathered("mine", ((X, y), (X, y)))
        assert torch.equal(data.y_train, y.float() if y.dtype in (torch.float64, torch.bool) else y)
        assert data.classes == (4 if y.ndim == 3 else 0)
    assert gathered("mine", ((X[:, 0], Y), (X[:, 0], Y))).input_shape == (8,)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("RGBA", 3), ("P", 3)])
def test_pictures_are_normalised_by_the_training_part(mode: str, channels: int) -> None:
    data = gathered("mine", (Items(pictures(mode), ["a", "b", "c"]), Items(pictures(mode)[:6])))
    assert data.input_shape == (channels, 6, 9)
    assert data.class_names == ("a", "b", "c")
    torch.testing.assert_close(data.x_train.mean((0, 2, 3)), torch.zeros(channels), atol=1e-5, rtol=0)
    torch.testing.assert_close(data.x_train.std((0, 2, 3), correction=0), torch.ones(channels), atol=1e-5, rtol=0)


class Random(Items):
    def __getitem__(self, index: int) -> Any:
        return self.items[index][0] + random.random(), self.items[index][1]


SIGNALS = list(zip(X, Y.tolist(), strict=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, r"data 'mine': got a int, expected a TensorData, or \(train, test\)"),
        (PART, r"got a tuple of 2, as of one part, expected a TensorData, or \(train, test\)"),
        ((PART,), "got a tuple of 1"),
        ({"train": PART, "val": PART}, "there is no part 'test' among 'train', 'val'"),
        ({"train": PART, "test": PART, "val": PART, "dev": PART}, "validation is given twice, under 'val', 'dev'"),
        ((PART, X), r"test part is a Tensor \(30, 1, 8\), expected \(x, y\)"),
        ((PART, iter(SIGNALS)), "test part is a zip|test part is a list_iterator"),
        ((PART, Items([])), "test part has no samples"),
        ((Items([*SIGNALS[:7], (X[7, :, :5], 1), *SIGNALS[8:]]), PART), r"train part, sample 7: the input is float32 \(1, 5\), that"),
        ((Items([*SIGNALS[:7], (X[7].double(), 1)]), PART), r"sample 7: the input is float64 \(1, 8\)"),
        ((Items([*SIGNALS[:7], (X[7], 1.5)]), PART), r"sample 7: the target is float64 \(\), that of sample 0 int64 \(\)"),
        ((Items([*pictures()[:4], *pictures("L")]), PART), r"sample 4: the input is uint8 \(1, 6, 9\), that of sample 0 uint8 \(3, 6, 9\)"),
        ((Items([(X[0], 1, 2)]), PART), r"sample 0 is a tuple of 3, expected \(x, y\), or a dict"),
        ((Items([{"pixels": X[0], "label": 1}]), PART), "sample 0 has pixels, label; expected an input, such as x, image"),
        ((Items([("text", 1)]), PART), "sample 0: the input is a str, expected numbers or an image"),
        ((Items([SIGNALS[0], None]), PART), "sample 1 is a NoneType"),
        ((Random(SIGNALS), PART), "sample 0, is another one when it is read again, as by random transforms"),
        (((X.numpy().astype(object), Y), PART), "train part, x holds object, expected numbers"),
        (((X, Y[:7]), PART), "x has 30 samples and y 7"),
        (((torch.randn(30, 28, 28), Y), PART), r"looks like images without an axis of channels.*or a TensorData"),
        (((X, Y + 1), (X, Y + 1)), "labels go from 1 to 3 and none is 0, as if they were counted from 1; subtract 1"),
    ],
)  # fmt: skip
def test_what_is_refused(given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        gathered("mine", given)


def test_a_sample_that_cannot_be_read_is_named() -> None:
    class Broken(Items):
        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(index) if index < 5 else 1 / 0

    with pytest.raises(DataError, match=r"train part, sample 5 cannot be read: .*division by zero"):
        gathered("mine", (Broken(SIGNALS), PART))


def test_the_random_state_is_left_alone() -> None:
    class Drawing(Items):
        def __getitem__(self, index: int) -> Any:
            torch.rand(1), np.random.rand(), random.random()
            return super().__getitem__(index)

    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    gathered("mine", (Drawing(SIGNALS), PART))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


# --- factories


FACTORY = """
import torch
def make(n=30, root=None):
    x = torch.randn(n, 1, 8, generator=torch.Generator().manual_seed(0))
    return (x, torch.arange(n) % 3), (x, torch.arange(n) % 3)
def fails():
    raise KeyError("no file")
"""


def test_a_factory_is_called_with_its_options(module_of: Any) -> None:
    module = module_of(FACTORY)
    assert len(load_data(f"{module}:make", options={"n": 12}).y_train) == 12
    assert load_data(f"{module}:make", limit=6).name == f"{module}:make"
    with pytest.raises(
        ConfigError, match=rf"data {module}:make: the call make\(root=None, m=3\) failed: .*unexpected keyword argument 'm'"
    ):
        load_data(f"{module}:make", options={"m": 3})
    with pytest.raises(ConfigError, match=r"the call fails\(\) failed: .*no file"):
        load_data(f"{module}:fails")
    with pytest.raises(ConfigError, match="has no function or class 'other'"):
        load_data(f"{module}:other")
