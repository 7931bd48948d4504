"""Augmentations in a run: their random numbers are functions of (seed, epoch, sample) alone, and fair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import chi2, kstest
from torch import nn

from anarch_core.augmentation import AbstractAugmentation, Augmenting, Draws
from anarch_core.data.order import epoch_order
from anarch_core.errors import ConfigError, PluginError
from anarch_core.plugin import get_registry
from anarch_core.training.loop import Training


def chain(*names: str, seed: int = 0) -> Augmenting:
    return Augmenting({name: get_registry().create("augmentation", name) for name in names}, seed)


def chi_square(observed: torch.Tensor) -> float:
    """Probability of counts that are at least as uneven, were all equally likely."""
    expected = observed.sum() / observed.numel()
    return float(chi2.sf(float(((observed - expected) ** 2 / expected).sum()), observed.numel() - 1))


# --- numbers


def test_numbers_are_pinned() -> None:
    """A change here would make a resumed run differ from the one that was cut off."""
    draws = Draws("augment:flip:0:0", torch.tensor([0, 1, 49_999]))
    assert draws.uniform("mirror", 2).tolist() == [
        [0.8694036613470777, 0.20579013902729182],
        [0.47884432913478403, 0.8866629740607779],
        [0.13022106965021807, 0.4703574349997304],
    ]


def test_the_hash_is_splitmix64() -> None:
    """With a start of 0 the generator of Steele, Lea & Flood gives these numbers (their reference implementation)."""
    from anarch_core.augmentation import _GOLDEN, _mixed, _signed

    states = torch.arange(1, 4) * _signed(_GOLDEN)
    assert [number % 2**64 for number in _mixed(states).tolist()] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_numbers_are_uniform_and_independent() -> None:
    samples = torch.arange(50_000)
    draws = Draws("augment:crop:3:7", samples)
    numbers = draws.uniform("shift", 4)
    assert numbers.shape == (50_000, 4)
    assert 0 <= numbers.min() <= numbers.max() < 1
    for column in numbers.T:
        assert kstest(column.numpy(), "uniform").pvalue > 0.001
    cells = (numbers * 8).long()
    for one, other in ((cells[:, 0], cells[:, 1]), (cells[:-1, 0], cells[1:, 0]), (cells[:, 2], cells[:, 3])):
        assert chi_square(torch.bincount(8 * one + other, minlength=64).double()) > 0.001  # columns, and neighbouring samples


@pytest.mark.parametrize(
    "other",
    [
        Draws("augment:crop:3:8", torch.arange(20_000)),
        Draws("augment:crop:4:7", torch.arange(20_000)),
        Draws("augment:flip:3:7", torch.arange(20_000)),
    ],
    ids=["epoch", "seed", "augmentation"],
)
def test_other_epochs_seeds_and_augmentations_have_independent_numbers(other: Draws) -> None:
    one = Draws("augment:crop:3:7", torch.arange(20_000)).integers("shift", 9)[:, 0]
    assert chi_square(torch.bincount(9 * one + other.integers("shift", 9)[:, 0], minlength=81).double()) > 0.001


def test_whole_numbers_are_equally_likely() -> None:
    numbers = Draws("test", torch.arange(45_000)).integers("shift", 9, 2)
    for column in numbers.T:
        assert chi_square(torch.bincount(column, minlength=9).double()) > 0.001


def test_streams_differ_and_repeat() -> None:
    draws = Draws("test", torch.arange(100))
    assert torch.equal(draws.uniform("a"), draws.uniform("a", 3)[:, :1])
    assert not torch.equal(draws.uniform("a"), draws.uniform("b"))


# --- chains


def test_a_sample_looks_the_same_in_any_batch() -> None:
    x = torch.randn(60, 3, 12, 12)
    augment = chain("crop", "flip", "cutout")
    order = epoch_order(60, 0, 2)
    whole = torch.empty_like(x)
    for size in (60, 7, 1):
        looks = torch.empty_like(x)
        for rows in order.split(size):
            looks[rows] = augment(x[rows], rows, 2)
        if size == 60:
            whole = looks
        assert torch.equal(looks, whole)


def test_adding_an_augmentation_leaves_the_draws_of_the_others() -> None:
    x, rows = torch.randn(40, 1, 20), torch.arange(40)
    both = chain("flip", "crop")(x, rows, 1)
    assert torch.equal(both, chain("crop")(chain("flip")(x, rows, 1), rows, 1))


class Wrong(AbstractAugmentation):
    def augmented(self, inputs: torch.Tensor, draws: Draws) -> Any:
        return {"shape": inputs[:, :, 1:], "type": inputs.tolist(), "raise": None}[self.options] if self.options != "raise" else 1 / 0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("shape", r"Wrong: augmented\(\) gave float32 \(2, 1, 4\) on cpu for float32 \(2, 1, 5\) on cpu, expected the same"),
        ("type", r"Wrong: augmented\(\) gave a list, expected Tensor"),
        ("raise", "Wrong: ZeroDivisionError: division by zero"),
    ],
)
def test_a_wrong_augmentation_is_named(how: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        Augmenting({"wrong": Wrong(how)}, 0)(torch.ones(2, 1, 5), torch.arange(2), 0)


# --- training


def training(batch_size: int = 8, augment: Augmenting | None = None, **settings: Any) -> Training:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 3))
    x, y = torch.randn(40, 1, 20), torch.arange(40) % 3
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Training(
        model=model, optimizer=optimizer, x=x, y=y, batch_size=batch_size, seed=1, learning_rate=lambda _: 0.1, augment=augment, **settings
    )


def weights(of: Training) -> torch.Tensor:
    return nn.utils.parameters_to_vector(of.model.parameters()).detach()


def test_a_resumed_training_reaches_the_same_bits() -> None:
    straight = training(augment=chain("crop", "flip"))
    while straight.iteration < 12:
        straight.advance(12)
    first = training(augment=chain("crop", "flip"))
    first.advance(3)
    second = training(augment=chain("crop", "flip"))
    second.load_state(*first.state())
    while second.iteration < 12:
        second.advance(12)
    assert torch.equal(weights(straight), weights(second))
    plain = training()
    while plain.iteration < 12:
        plain.advance(12)
    assert not torch.equal(weights(straight), weights(plain))


class Shown(AbstractAugmentation):
    """A crop that keeps what it gives."""

    def augmented(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        self.options.append(get_registry().create("augmentation", "crop").augmented(inputs, draws))
        return self.options[-1]


def test_a_branch_meets_what_its_parent_would_have_met() -> None:
    """Epochs count from the network's birth."""
    seen: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
    parent, branch = (training(augment=Augmenting({"crop": Shown(looks)}, 0), first_epoch=first) for first, looks in enumerate(seen))
    parent.advance(5)
    parent.advance(10)
    branch.advance(5)
    assert torch.equal(torch.cat(seen[0][5:]), torch.cat(seen[1]))


# --- settings


def test_an_augmentation_is_named_once() -> None:
    from anarch_core.config import RunConfig

    with pytest.raises(ConfigError, match="augment names 'crop' twice; each augmentation is applied once"):
        RunConfig(augment="crop:4,flip,crop:2")
