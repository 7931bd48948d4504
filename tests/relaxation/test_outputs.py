"""What a network returns is looked through for numbers, and what cannot be compared is not called equal."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import attrs
import numpy as np
import pytest
import torch

from anarch_core.relaxation.outputs import deviation, largest, numbers_in, rounding

INF, NAN = math.inf, math.nan
ONES = torch.ones(2)


@dataclasses.dataclass
class Data:
    first: object
    second: object = None


@attrs.define
class Slots:
    first: object


Named = namedtuple("Named", "first second")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:.*quantized tensor creation functions")
@pytest.mark.parametrize(
    "made",
    [
        lambda t: t,
        lambda t: [t],
        lambda t: {"a": {"b": (t, None, "words")}},
        lambda t: OrderedDict(a=t),
        lambda t: Data(t),
        lambda t: Slots(t),
        lambda t: Named(t, "words"),
        lambda t: SimpleNamespace(a=[t]),
        lambda t: (each for each in [t]),
        lambda t: t.to_sparse(),
        lambda t: t.numpy(),
        lambda t: torch.nested.as_nested_tensor([t]),
        lambda t: torch.quantize_per_tensor(t, 0.5, 0, torch.qint8),
    ],
)
def test_numbers_are_found_wherever_they_are(made):
    (found,) = numbers_in(made(ONES))
    assert torch.equal(found, ONES)


def test_numbers_of_objects_come_in_a_fixed_order_and_are_copies():
    held = torch.zeros(2)
    found = numbers_in(Data(held, [1, 2.5, 1j, True]))
    held += 7
    assert [tensor.tolist() for tensor in found] == [[0, 0], 1, 2.5, 1j, 1]
    loc, scale, *_ = numbers_in(torch.distributions.Normal(ONES, 2 * ONES))
    assert torch.equal(scale, 2 * loc)


def test_what_holds_no_numbers_has_none():
    loop: list[object] = ["words"]
    loop.append(loop)
    assert numbers_in([None, "words", b"bytes", torch.float32, torch.nn.Linear(1, 1), np.array(["words"]), loop]) == []


@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0),
        ([1.0, 3.0], [1.0, 2.0], 0.5),
        ([INF, -INF, 1.0], [INF, -INF, 1.0], 0),
        ([INF, 1.5], [INF, 1.0], 0.5),
        ([INF], [-INF], INF),
        ([NAN, 1.0], [NAN, 1.0], 0),
        ([NAN], [1.0], INF),
        ([1.0], [NAN], INF),
        ([NAN], [NAN], None),
        ([1.0], [INF], INF),
        ([], [], None),
        ([1.0, 1.0], [1.0], INF),
        ([0.0], [0.0], 0),
        ([1e-30], [0.0], INF),
        ([1 + 1j], [1 + 0j], 1),
        ([3], [2], 0.5),
        ([True, False], [True, True], 1),
    ],
)
def test_deviation_is_relative_to_the_largest_finite_number(actual, expected, error):
    assert deviation(torch.tensor(actual), torch.tensor(expected)) == error


def test_without_data_nothing_is_compared():
    assert deviation(torch.ones(2, device="meta"), torch.ones(2, device="meta")) is None
    assert deviation(torch.ones(3, device="meta"), torch.ones(2, device="meta")) == INF
    assert largest([None, None]) is None
    assert largest([None, 1.0, 0.5]) == 1.0


def test_rounding_leaves_room_to_fail_in_every_precision():
    assert rounding(torch.float64) < 1e-12
    assert rounding(torch.float32) < 2e-4
    assert rounding(torch.float16) < 0.02
    assert rounding(torch.bfloat16) < 0.2
