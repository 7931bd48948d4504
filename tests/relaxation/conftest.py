"""Networks made of a convolution and a forward function, for tests of what a forward may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network() -> Callable[..., nn.Module]:
    """Of a forward function, called as ``forward(self, *inputs)``, and what the network holds beside a convolution ``c``."""
    torch.manual_seed(0)

    def build(forward: Callable[..., Any], **held: Any) -> nn.Module:
        class Network(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                for name, value in ({"c": nn.Conv2d(2, 2, 3, padding=1)} | held).items():
                    setattr(self, name, value)

            def forward(self, *inputs: Any) -> Any:
                return forward(self, *inputs)

        return Network()

    return build


@pytest.fixture
def same() -> Callable[[Any, Any], bool]:
    """Whether two nested structures of tensors, numbers and names are equal."""

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, torch.Tensor):
            return torch.equal(a, b)
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(equal, a, b))
        return bool(a == b)

    return equal
