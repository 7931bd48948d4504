"""One network of convolutions in one, two and three dimensions, ordinary, grouped and depthwise, relaxed into each family.

A test of these takes ``family`` and stands behind one row of ``docs/compatibility.md``, which it names by ``@pytest.mark.row``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from anarch_core.relaxation.verbs import relax

FAMILIES = ("efcn", "lcn", "shared", "tiled")


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def families() -> tuple[str, ...]:
    return FAMILIES


@pytest.fixture
def convolutions() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv3d(1, 2, (2, 3, 3), padding=1),
        nn.Flatten(1, 2),
        nn.Tanh(),
        nn.Conv2d(6, 4, 3, padding=1, groups=2, padding_mode="reflect"),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4, bias=False, padding_mode="circular"),
        nn.Tanh(),
        nn.Conv2d(4, 3, 2),
        nn.Flatten(2),
        nn.Conv1d(3, 2, 3, padding="same"),
        nn.Flatten(),
    )


@pytest.fixture
def batch() -> Callable[[int], torch.Tensor]:
    """So many inputs, in float64."""
    return lambda size: torch.randn(size, 1, 2, 5, 5, generator=torch.Generator().manual_seed(size), dtype=torch.float64)


@pytest.fixture
def network(family: str, convolutions: nn.Sequential, batch: Callable[[int], torch.Tensor]) -> nn.Module:
    """The network relaxed and moved off its parent, in float64."""
    model = relax(convolutions.double(), family, example_input=batch(2)).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model
