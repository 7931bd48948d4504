"""A layer of which each process holds some output channels is, on all of them, the layer that one process holds."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.errors import SurgeryError
from anarch_core.relaxation.verbs import initialise_relaxed
from anarch_core.sharding.shards import Shards
from anarch_core.sharding.shared_out import cuts_of, numbers
from anarch_core.testing.together import together

FAMILIES = ("efcn", "lcn", "shared", "tiled")


def network(**options: Any) -> nn.Module:
    """Two convolutions, of 6 and of 5 output channels, with dropout between them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, **options),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Dropout(0.2),
        nn.Conv2d(6, 5, 3, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(45, 4),
    ).double()


def example() -> torch.Tensor:
    return torch.randn(7, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def both(shards: Shards, family: str) -> tuple[nn.Module, nn.Module]:
    """The network relaxed by one process alone, and by all together."""
    alone = anarch_core.relax(network(), family, example_input=example()).model
    return alone, anarch_core.relax(network(), family, example_input=example(), shards=shards).model


def largest_difference(alone: nn.Module, shared: nn.Module) -> float:
    """Between what this process holds and the same numbers of the network that one process holds."""
    cuts, whole = cuts_of(shared), alone.state_dict()
    part = shared.state_dict()
    assert part.keys() == whole.keys()
    differences = [
        (tensor - (cuts[name].of_whole(whole[name]).view(tensor.shape) if name in cuts else whole[name])).abs().max()
        for name, tensor in part.items()
    ]
    return max(map(float, differences))


def lifted(shards: Shards, family: str) -> dict[str, Any]:
    alone, shared = both(shards, family)
    cuts = cuts_of(shared)
    held = {name: parameter.numel() for name, parameter in shared.named_parameters() if name in cuts}
    torch.manual_seed(5)
    initialise_relaxed(alone)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    initialise_relaxed(shared)
    state = torch.equal(after, torch.get_rng_state())
    return {
        "lift": largest_difference(*both(shards, family)),
        "drawn": largest_difference(alone, shared),
        "state": state,
        "held": held,
        "whole": {name: alone.get_parameter(name).numel() for name in held},
        "numbers": (numbers(shared), sum(parameter.numel() for parameter in alone.parameters())),
    }


@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_lift_and_initialisation_have_the_bits_of_one_process(family: str, processes: int) -> None:
    found = together(processes, lifted, family)
    for one in found:
        assert one["lift"] == one["drawn"] == 0
        assert one["state"]
        assert one["numbers"][0] == one["numbers"][1]
    for name, whole in found[0]["whole"].items():
        assert sum(one["held"][name] for one in found) == whole
    if processes == 2:
        assert all(one["held"]["0.weight"] * 2 == one["whole"]["0.weight"] for one in found)


def trained(shards: Shards, family: str, optimizer: str) -> dict[str, Any]:
    alone, shared = both(shards, family)
    reference = [anarch_core.relax(network(), family, example_input=example(), shards=way).model for way in (None, shards)]
    x, y = example(), torch.arange(7) % 4
    losses = []
    for model in (alone, shared):
        torch.manual_seed(1)
        made: torch.optim.Optimizer
        if optimizer == "adam":
            made = torch.optim.Adam(model.parameters(), lr=0.01)
        else:
            made = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
        told = []
        for _ in range(3):
            made.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            made.step()
            told.append(loss.item())
        losses.append(told)
    drifts = [attrs.asdict(anarch_core.drift(model, start).total) for model, start in zip((alone, shared), reference, strict=True)]
    projected = [anarch_core.project(model).state_dict() for model in (alone, shared)]
    return {
        "losses": losses,
        "weights": largest_difference(alone, shared),
        "drifts": drifts,
        "projected": max(float((one - projected[1][name]).abs().max()) for name, one in projected[0].items()),
    }


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
@pytest.mark.parametrize("family", FAMILIES)
def test_training_projection_and_drift_are_those_of_one_process(family: str, optimizer: str) -> None:
    found = together(2, trained, family, optimizer)
    assert found[0]["losses"][1] == found[1]["losses"][1]
    for one in found:
        assert one["losses"][1] == pytest.approx(one["losses"][0], rel=1e-14)
        assert one["weights"] < 1e-13
        assert one["projected"] < 1e-14
        alone, shared = one["drifts"]
        assert shared["initial"] == pytest.approx(alone["initial"], rel=1e-13)
        for part in ("shared", "unshared", "off_local", "moved", "reference"):
            assert shared[part] == pytest.approx(alone[part], rel=1e-12, abs=1e-20)


def differentiated(shards: Shards, family: str) -> float:
    """The largest difference of a Hessian product, against that of one process along the same direction."""
    alone, shared = both(shards, family)
    x, y, cuts = example(), torch.arange(7) % 4, cuts_of(shared)
    along = {
        name: torch.randn(parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(place))
        for place, (name, parameter) in enumerate(alone.named_parameters())
    }
    found = []
    for model, own in ((alone, lambda name, whole: whole), (shared, lambda name, whole: cuts[name].of_whole(whole))):
        model.eval()
        parameters = dict(model.named_parameters())
        gradient = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(parameters.values()), create_graph=True)
        direction = [(own(n, along[n]) if n in cuts else along[n]).view(p.shape) for n, p in parameters.items()]
        found.append(dict(zip(parameters, torch.autograd.grad(gradient, list(parameters.values()), direction), strict=True)))
    whole, part = found
    expected = {name: cuts[name].of_whole(whole[name]).view(part[name].shape) if name in cuts else whole[name] for name in part}
    return max(float((part[name] - expected[name]).abs().max() / expected[name].abs().max()) for name in part)


@pytest.mark.parametrize("family", FAMILIES)
def test_hessian_products_are_those_of_one_process(family: str) -> None:
    assert max(together(2, differentiated, family)) < 1e-12


def relaxed_twice(shards: Shards) -> float:
    found = []
    for way in (None, shards):
        model = anarch_core.relax(network(), "lcn", example_input=example(), shards=way).model
        found.append(anarch_core.relax(model, "efcn", example_input=example(), shards=way).model)
    return largest_difference(*found)


def test_a_layer_that_is_shared_out_is_relaxed_further_where_it_is() -> None:
    assert max(together(2, relaxed_twice)) == 0


def refused(shards: Shards, what: str) -> str:
    model, relaxation = network(), "efcn"
    if what == "groups":
        model = network(groups=2)
    elif what == "channels":
        model[4] = nn.Conv2d(6, 1, 3).double()
        model[7] = nn.LazyLinear(2).double()
        model(example())
    else:
        relaxation = "grow"
    try:
        anarch_core.relax(model, relaxation, example_input=example(), shards=shards)
    except SurgeryError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("groups", "0 cannot be relaxed: it has 2 groups, and only convolutions of one group are shared out among processes"),
        ("channels", "4 cannot be relaxed: it has 1 output channels, fewer than the 2 processes"),
        ("relaxation", "is none of the lattice, and may mix output channels; train it in one process"),
    ],
)
def test_what_cannot_be_shared_out_is_refused_by_name(what: str, expected: str) -> None:
    assert all(expected in message for message in together(2, refused, what))
