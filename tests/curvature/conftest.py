from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev


@attrs.frozen(kw_only=True)
class Case:
    """A small network with samples and its dense float64 Hessian by torch.func, an independent way to it."""

    model: nn.Module
    inputs: torch.Tensor
    targets: torch.Tensor
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    dense: torch.Tensor


def dense_hessian(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, loss=nn.functional.cross_entropy) -> torch.Tensor:
    names, sizes, shapes = zip(*((name, p.numel(), p.shape) for name, p in model.named_parameters()), strict=True)
    buffers = dict(model.named_buffers())

    def risk(flat: torch.Tensor) -> torch.Tensor:
        parts = {name: part.view(shape) for name, part, shape in zip(names, flat.split(sizes), shapes, strict=True)}
        return loss(functional_call(model, {**parts, **buffers}, (inputs,)), targets)

    flat = torch.cat([p.detach().flatten() for p in model.parameters()])
    mode = model.training
    model.eval()
    matrix = jacrev(grad(risk))(flat).detach()
    model.train(mode)
    return (matrix + matrix.T) / 2


def train(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, steps: int, lr: float = 0.1) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    model.zero_grad(set_to_none=True)
    return model


def conv1d() -> tuple[nn.Module, tuple[int, ...]]:
    features = [nn.Conv1d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv1d(3, 4, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(32, 3)), (1, 16)


def conv2d_pool() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 4)), (2, 6, 6)


def conv2d_norm() -> tuple[nn.Module, tuple[int, ...]]:
    features = [nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5), nn.AvgPool2d(2)]
    return nn.Sequential(*features, nn.Flatten(), nn.Linear(12, 3)), (1, 6, 6)


@pytest.fixture(scope="session", params=[conv1d, conv2d_pool, conv2d_norm], ids=lambda build: build.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    model, shape = request.param()
    model = model.double()
    inputs = torch.randn(30, *shape, dtype=torch.float64)
    targets = torch.randint(model[-1].out_features, (30,))
    train(model, inputs, targets, 20)
    return Case(model=model, inputs=inputs, targets=targets, loss=nn.functional.cross_entropy, dense=dense_hessian(model, inputs, targets))


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
