"""Groups come to see one another: which weights there are, and what cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from anarch_core import drift, project, relax
from anarch_core.errors import SurgeryError
from anarch_core.relaxation import Site
from anarch_core.testing.cases import Case
from anarch_plugins.relaxations.ungroup.options import UngroupOptions
from anarch_plugins.relaxations.ungroup.relaxation import UngroupRelaxation
from tests.plugins.relaxations.explicit import check_generated, matrix


def ungroup(groups: int = 1) -> UngroupRelaxation:
    return UngroupRelaxation(UngroupOptions(groups=groups))


def site(module: nn.Module) -> Site:
    return Site(path="layer", module=module, input_shape=(), output_shape=())


@st.composite
def grouped(draw: st.DrawFn, groups: int) -> Case:
    """Convolutions of a multiple of ``groups`` groups."""
    d = draw(st.integers(1, 3))
    count = groups * draw(st.integers(2, 3))
    kernel = tuple(draw(st.integers(1, 3 if d < 3 else 2)) for _ in range(d))
    mode = draw(st.sampled_from(["zeros", "reflect", "replicate", "circular"]))
    padding = draw(st.sampled_from(["same", "valid", tuple(draw(st.integers(0, 1)) for _ in range(d))]))
    torch.manual_seed(draw(st.integers(0, 9)))
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[d - 1](
        count * draw(st.integers(1, 2)),
        count * draw(st.integers(1, 2)),
        kernel,  # type: ignore[arg-type]
        stride=1 if padding == "same" else tuple(draw(st.integers(1, 2)) for _ in range(d)),  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        padding_mode=mode,
        groups=count,
        bias=draw(st.booleans()),
        dtype=torch.float64,
    )
    return Case(conv, torch.randn(2, conv.in_channels, *[draw(st.integers(3, 5)) for _ in range(d)], dtype=torch.float64))


def written_out(conv: Any, groups: int) -> np.ndarray:
    """A, one weight after the other: input channel c of the image is c - first of the group that output o is in."""
    old, new = conv.in_channels // conv.groups, conv.in_channels // groups

    def placed(theta: np.ndarray) -> np.ndarray:
        weight = np.zeros((conv.out_channels, new, *theta.shape[2:]))
        for o in range(conv.out_channels):
            before, after = o // (conv.out_channels // conv.groups), o // (conv.out_channels // groups)
            for c in range(before * old, (before + 1) * old):
                weight[o, c - after * new] = theta[o, c - before * old]
        return weight

    return matrix(placed, tuple(conv.weight.shape))


@pytest.mark.parametrize("groups", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_is_exact_and_projects_as_least_squares_does(groups: int) -> None:
    check_generated(grouped(groups), ungroup(groups), lambda conv: written_out(conv, groups))


def test_one_network_goes_from_eight_groups_by_four_to_one_and_back_in_one_step() -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, groups=8), nn.ReLU()).double(), torch.randn(2, 8, 5, 5).double()
    four = relax(network, "ungroup", options={"groups": 4}, example_input=x).model
    with torch.no_grad():
        four[0].free.weight.normal_()
    one = relax(four, "ungroup", example_input=x).model
    assert one[0].free.groups == 1
    assert one[0].free.weight.shape == (16, 8, 3, 3)
    assert (one(x) - four(x)).abs().max() < 1e-12
    assert drift(one).total.off_local == pytest.approx(drift(four).total.off_local, rel=1e-12)
    back = project(one)
    assert back[0].groups == 8
    assert torch.allclose(back[0].weight, project(four)[0].weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("second", ["lcn", "efcn"])
def test_goes_on_into_the_lattice(second: str) -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1, groups=4), nn.ReLU()).double(), torch.randn(2, 4, 6).double()
    free = relax(network, "ungroup", example_input=x).model
    further = relax(free, second, example_input=x).model
    assert (further(x) - network(x)).abs().max() < 1e-12
    with torch.no_grad():
        for parameter in further.parameters():
            parameter.add_(torch.randn_like(parameter))
    last = relax(further, "efcn", example_input=x).model if second == "lcn" else further
    assert (last(x) - further(x)).abs().max() < 1e-12
    back = project(last)
    assert back[0].groups == 4
    assert torch.allclose(back[0].weight, project(further)[0].weight, rtol=0, atol=1e-12)


def test_one_group_has_nothing_to_relax() -> None:
    assert ungroup().idle(site(nn.Conv1d(2, 2, 1))) == "it has one group"
    assert ungroup(2).idle(site(nn.Conv1d(4, 4, 1, groups=2))) == "it has 2 groups"
    assert ungroup(2).idle(site(nn.Conv1d(4, 4, 1, groups=4))) is None
    network = nn.Sequential(nn.Conv1d(4, 4, 3, groups=2), nn.Conv1d(4, 4, 1))
    assert set(relax(network, "ungroup", example_input=torch.zeros(1, 4, 5)).sites) == {"0"}


@pytest.mark.parametrize(
    ("module", "groups", "reason"),
    [
        (nn.Conv1d(6, 6, 1, groups=6), 4, "its 6 groups cannot become 4, which is no divisor of 6"),
        (nn.Conv1d(6, 6, 1, groups=2), 6, "its 2 groups cannot become 6, which is no divisor of 2"),
        (nn.ConvTranspose1d(6, 6, 1, groups=2), 1, "it is a ConvTranspose1d, which ungroup does not know how to embed"),
        (nn.Conv1d(2, 2, 1, groups=2, dtype=torch.complex64), 1, "its weight is complex64, and ungroup knows real ones"),
    ],
)
def test_what_cannot_be_is_refused_with_the_values(module: nn.Module, groups: int, reason: str) -> None:
    assert ungroup(groups).refusal(site(module)) == reason


def test_a_refused_layer_is_named() -> None:
    network = nn.Sequential(nn.Conv1d(6, 6, 1, groups=6))
    with pytest.raises(SurgeryError, match="0 cannot be relaxed: its 6 groups cannot become 4"):
        relax(network, "ungroup", options={"groups": 4}, example_input=torch.zeros(1, 6, 3))
