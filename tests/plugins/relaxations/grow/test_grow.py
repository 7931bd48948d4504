"""Kernels grow at the same positions: which weights there are, what has nothing to grow, and what cannot."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from anarch_core import drift, project, relax
from anarch_core.errors import NoEffectWarning, OptionError
from anarch_core.relaxation import Site
from anarch_core.testing import convolutions
from anarch_plugins.relaxations.grow.options import GrowOptions
from anarch_plugins.relaxations.grow.relaxation import GrowRelaxation
from tests.plugins.relaxations.explicit import check_generated, matrix


def grow(*by: int) -> GrowRelaxation:
    return GrowRelaxation(GrowOptions(by=by))


def site(module: nn.Module, *size: int) -> Site:
    return Site(path="layer", module=module, input_shape=(getattr(module, "in_channels", 1), *size) if size else (), output_shape=())


def written_out(conv: Any, by: tuple[int, ...]) -> np.ndarray:
    """A: taps are surrounded by zeros."""
    width = [(0, 0), (0, 0), *((n, n) for n in (by if len(by) > 1 else by * len(conv.kernel_size)))]
    return matrix(lambda theta: np.pad(theta, width), tuple(conv.weight.shape))


@pytest.mark.parametrize(("by", "dims"), [((1,), (1, 2, 3)), ((3,), (1,)), ((2, 0), (2,)), ((0, 1, 2), (3,))])
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_is_exact_and_projects_as_least_squares_does(by: tuple[int, ...], dims: tuple[int, ...]) -> None:
    check_generated(convolutions.cases(dims), grow(*by), lambda conv: written_out(conv, by))


def test_grows_twice_and_on_to_a_kernel_as_large_as_the_image_and_back_in_one_step() -> None:
    torch.manual_seed(0)
    network, x = nn.Sequential(nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU()).double(), torch.randn(2, 2, 7, 8).double()
    model, expected = network, network[0].weight
    for relaxation, kernel in (("grow", (5, 5)), ("grow", (7, 7)), ("shared", None)):
        further = relax(model, relaxation, example_input=x).model
        assert (further(x) - model(x)).abs().max() < 1e-12
        assert torch.allclose(project(further)[0].weight, expected, rtol=0, atol=1e-12)
        assert kernel is None or further[0].free.kernel_size == kernel
        model = further
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        expected = project(model)[0].weight
    assert project(model)[0].kernel_size == (3, 3)
    assert drift(model).total.off_local > 0


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv1d(1, 1, 5, padding=2), 3),
        (nn.Conv1d(1, 1, 1), 1),
        (nn.Conv1d(1, 1, 2, padding=8, dilation=9, stride=3), 3),
        (nn.Conv1d(1, 1, 3, padding=0), 3),
    ],
)
def test_a_kernel_that_reaches_every_pixel_has_nothing_to_relax(conv: nn.Module, size: int) -> None:
    assert grow(2).idle(site(conv, size)) == "taps beside its kernel would read nothing but padded zeros"
    assert grow(2).idle(site(conv, size + 1)) is None or conv.dilation[0] > 1
    assert grow(2).idle(site(conv)) is None
    with pytest.warns(NoEffectWarning, match=r"nothing to relax in 0: taps beside its kernel"):
        relax(nn.Sequential(conv), "grow", options={"by": [2]}, example_input=torch.zeros(1, 1, size))


def test_an_axis_that_does_not_grow_may_go_on_for_ever() -> None:
    conv = nn.Conv2d(1, 1, (5, 1), padding=(2, 0))
    assert grow(1, 0).idle(site(conv, 3, 9)) is not None
    assert grow(0, 1).idle(site(conv, 3, 9)) is None


@pytest.mark.parametrize(
    ("module", "by", "size", "reason"),
    [
        (
            nn.Conv1d(1, 1, 3, padding=1, padding_mode="reflect"),
            (3,),
            (4,),
            "its reflect padding would be 4, and an input of 4 has no more than 3 pixels",
        ),
        (
            nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"),
            (4,),
            (4,),
            "its circular padding would be 5, and an input of 4 has no more than 4",
        ),
        (nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"), (1,), (), "called at several sizes"),
        (nn.Conv2d(1, 1, 3), (1, 2, 3), (5, 5), "its kernel has 2 axes, and 'by' says how 3 grow"),
        (nn.ConvTranspose1d(1, 1, 3), (1,), (5,), "it is a ConvTranspose1d"),
    ],
)
def test_what_cannot_grow_is_refused_with_the_values(module: nn.Module, by: tuple[int, ...], size: tuple[int, ...], reason: str) -> None:
    assert reason in (grow(*by).refusal(site(module, *size)) or "")
    assert grow(*by).idle(site(module, *size)) is None


def test_padding_that_replicates_or_is_the_same_grows_as_far_as_one_likes() -> None:
    x = torch.randn(1, 1, 3, 4).double()
    for conv in (nn.Conv2d(1, 1, (2, 3), padding="same"), nn.Conv2d(1, 1, 3, padding=1, padding_mode="replicate")):
        network = nn.Sequential(conv).double()
        assert (relax(network, "grow", options={"by": [9]}, example_input=x).model(x) - network(x)).abs().max() < 1e-12


@pytest.mark.parametrize("by", [[], [0], [0, 0], [-1], [1, 20_000], 2])
def test_numbers_that_say_nothing_are_refused(by: Any) -> None:
    with pytest.raises(OptionError, match="by"):
        relax(nn.Sequential(nn.Conv1d(1, 1, 3)), "grow", options={"by": by}, example_input=torch.zeros(1, 1, 5))
