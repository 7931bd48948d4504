"""What the first of several processes would hold and send is what it does hold and send, known before the others are there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.planning.hollow import Hollow
from anarch_core.planning.rehearsal import Rehearsal
from anarch_core.plugin.registry import get_registry
from anarch_core.relaxation.selection import Selection
from anarch_core.sharding.imagined import Imagined
from anarch_core.sharding.shards import Shards
from anarch_core.testing.together import together


def network() -> nn.Module:
    """Two convolutions, of 6 and of 5 output channels."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(45, 4)
    )


X, Y = torch.zeros(7, 2, 6, 6), torch.arange(7) % 4


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def trained(shards: Shards, family: str) -> dict[str, Any]:
    """A step of training by real processes."""
    model = anarch_core.relax(network(), family, example_input=X, shards=shards).model
    before = shards.sent
    nn.functional.cross_entropy(model(X), Y).backward()
    return {
        "sent": shards.sent - before,
        "held": {name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
    }


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("family", ["efcn", "lcn", "shared", "tiled"])
def test_a_step_of_imagined_processes_holds_and_sends_what_that_of_real_ones_does(family: str, processes: int) -> None:
    rehearsal = Rehearsal(network(), processes)
    rehearsal.relax(Selection.of(network(), family, X, "*", None, get_registry()))
    rehearsal.training(sgd, X, Y, batch=len(X))
    first, *_ = together(processes, trained, family)
    assert rehearsal.sent == first["sent"] > 0
    assert {name: tuple(parameter.shape) for name, parameter in rehearsal.model.named_parameters()} == first["held"]


def test_bytes_are_those_of_a_ring_of_processes() -> None:
    """An all-gather passes its own part to every other; an all-reduce sends a part of the sum twice, to all but itself."""
    shards = Imagined(4)
    assert shards.gathered(torch.zeros(3, 2, 5), 1, 8).shape == (3, 8, 5)
    assert shards.sent == 3 * 4 * (3 * 2 * 5)
    before = shards.sent
    assert shards.summed(torch.zeros(3, 8)).shape == (3, 8)
    assert shards.sent - before == 2 * 4 * (3 * 8) * 3 // 4


def test_tensors_may_hold_no_numbers() -> None:
    shards, part = Imagined(3), Hollow(torch.empty(7, 2, 4, device="meta"), torch.device("cpu"))
    whole, total = shards.gathered(part, 1, 5), shards.summed(part)
    assert isinstance(whole, Hollow)
    assert isinstance(total, Hollow)
    assert (whole.shape, total.shape) == ((7, 5, 4), (7, 2, 4))


def test_it_decides_alone_and_waits_for_nobody() -> None:
    shards = Imagined(2)
    assert (shards.rank, shards.size, shards.leads) == (0, 2, True)
    assert shards.agreed({"stop": True}) == {"stop": True}
    shards.meet()
    assert shards.totals([1.0, 2.5]) == [2.0, 5.0]  # the others are taken to have as much
    assert shards.sent == 0
