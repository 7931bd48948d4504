"""What processes that hold a network together tell one another."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

from anarch_core.errors import LostProcessError
from anarch_core.sharding.copies import align_copies
from anarch_core.sharding.maps import gather, spread
from anarch_core.sharding.shards import Shards
from anarch_core.testing.together import together


def told(shards: Shards) -> dict[str, Any]:
    own = shards.stretch(5)
    whole = torch.arange(30.0).view(2, 5, 3)
    return {
        "stretch": own,
        "gathered": torch.equal(shards.gathered(whole[:, own.start : own.stop], 1, 5), whole),
        "summed": shards.summed(torch.full((2,), float(shards.rank + 1))).tolist(),
        "totals": shards.totals([1.0, shards.rank]),
        "agreed": shards.agreed({"rank": shards.rank}),
    }


def test_stretches_gathers_sums_and_words() -> None:
    found = together(3, told)
    assert [one["stretch"] for one in found] == [range(2), range(2, 4), range(4, 5)]
    for one in found:
        assert one["gathered"]
        assert one["summed"] == [6.0, 6.0]
        assert one["totals"] == [3.0, 3.0]
        assert one["agreed"] == {"rank": 0}


def counted(shards: Shards) -> int:
    before = shards.sent
    shards.gathered(torch.zeros(4, 2, 3), 1, 4)
    shards.summed(torch.zeros(4, 4))
    return shards.sent - before


def test_bytes_that_are_sent_are_those_of_a_ring() -> None:
    assert together(2, counted) == [4 * 2 * 3 * 4 + 4 * 4 * 4] * 2


def twice(shards: Shards) -> list[bool]:
    """A function of all channels in float64, differentiated twice along every direction."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 3, dtype=torch.float64, generator=generator)
    own = shards.stretch(4)

    def alone(x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ weight.T).pow(3).sum()

    def shared(x: torch.Tensor) -> torch.Tensor:
        part = torch.tanh(spread(x, shards) @ weight[own.start : own.stop].T)
        return gather(part, shards, 4).pow(3).sum()

    found = []
    for function in (torch.autograd.functional.jacobian, torch.autograd.functional.hessian):
        expected, got = function(alone, x), function(shared, x)
        found.append(bool(torch.allclose(got, expected, rtol=1e-13, atol=1e-14)))
    return found


def test_maps_are_adjoint_and_differentiable_twice() -> None:
    assert together(2, twice) == [[True, True]] * 2


def alone_at_a_meeting(shards: Shards) -> str:
    group: Any = dist.new_group(timeout=timedelta(seconds=0.5))
    if shards.leads:
        try:
            Shards(group).meet()
        except LostProcessError as error:
            return str(error)
    return ""


def test_one_that_does_not_answer_is_given_up() -> None:
    message, _ = together(2, alone_at_a_meeting)
    assert message.startswith("a process that holds a part of the network is gone or does not answer: ")


def apart(shards: Shards) -> bool:
    torch.manual_seed(shards.rank)
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2))
    align_copies(model, shards)
    whole = torch.cat([tensor.double().flatten() for tensor in model.state_dict().values()])
    return bool(torch.equal(shards.agreed(whole), whole))


def test_copies_that_parted_are_those_of_the_first_again() -> None:
    assert together(2, apart) == [True, True]


def test_what_fails_in_all_is_told_and_the_next_call_works() -> None:
    with pytest.raises(RuntimeError, match=r"process \d of 2:(?s:.)*ZeroDivisionError"):
        together(2, fails)
    assert together(2, fails_not) == [0, 1]


def fails(shards: Shards) -> float:
    return 1 / 0


def fails_not(shards: Shards) -> int:
    return shards.rank
