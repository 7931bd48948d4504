"""Training steps of the small networks of the default run, where what stands between the products costs as much as they do.

MNIST-1D, batch 100. The contenders that are not anarch read no batches and count no hits, which its loop does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from measure import OURS, PRODUCTS, Case, Step
from torch import nn
from torch.nn import functional

from anarch_core.models import build_model
from anarch_core.ops.by_position import ByPosition
from anarch_core.ops.full_product import FullProduct
from anarch_core.ops.piece import Piece
from anarch_core.relaxation.verbs import relax
from anarch_core.training.loop import Training
from anarch_core.training.pieces import piece_of

BATCH, RATE, STEPS = 100, 0.01, 20
SHAPE = (1, 40)

NAMES = {"conv": "CNN", "efcn": "eFCN", "lcn": "LCN", "tiled": "tiled", "shared": "shared"}


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(BATCH * STEPS, *SHAPE, generator=generator), torch.randint(10, (BATCH * STEPS,), generator=generator)


def network(relaxation: str, seed: int = 0) -> nn.Module:
    model = build_model("cnn1d", input_shape=SHAPE, classes=10, seed=seed)
    return model if relaxation == "conv" else relax(model, relaxation, example_input=data()[0][:2], check=False).model


def trained_pieces(model: nn.Module) -> list[Piece]:
    """The layers that have weights, as pieces of a chain."""
    found, shape = [], SHAPE
    for module in model.modules():
        if isinstance(module, nn.Sequential):
            continue
        piece = piece_of(module, shape)
        if piece is None:
            msg = f"{type(module).__name__} is no piece of a chain for samples of shape {shape}"
            raise TypeError(msg)
        found.append(piece)
        shape = piece.output_shape
    return [piece for piece in found if piece.parameters]


def loop(model: nn.Module, *, seed: int = 0, chained: bool = True) -> Training:
    """That of ``anarch run``."""
    x, y = data()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, fused=True)
    return Training(
        model=model, optimizer=optimizer, x=x, y=y, batch_size=BATCH, seed=seed, learning_rate=lambda _: RATE, chained=chained
    )  # fmt: skip


def ours(relaxation: str, *, chained: bool = True) -> Step:
    """An epoch of the loop that ``anarch run`` runs."""
    training = loop(network(relaxation), chained=chained)
    return lambda: training.advance(training.iteration + STEPS)


def plain(relaxation: str) -> Step:
    """The same network under autograd and ``torch.optim.SGD``, without reading batches."""
    x, y = data()
    model = network(relaxation)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)

    def step() -> None:
        for inputs, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

    return step


def products(relaxation: str) -> Step:
    """The matrix products of a chain's steps, into memory that lies ready, and nothing else."""
    calls = [
        call
        for number, piece in enumerate(trained_pieces(network(relaxation)))
        for call in (_of_dense_layer(piece) if isinstance(piece, FullProduct) else _of_positions(piece))[: 3 if number else 2]
    ]

    def step() -> None:
        for _ in range(STEPS):
            for call in calls:
                call()

    return step


def _of_dense_layer(piece: FullProduct) -> Sequence[Callable[[], object]]:
    """The products of the outputs, of the weight gradient and of the input gradient."""
    outputs, inputs = piece.parameters[0].shape
    weight, x, y = torch.randn(outputs, inputs), torch.randn(inputs, BATCH), torch.randn(outputs, BATCH)
    y_room, x_room = torch.empty_like(y), torch.empty_like(x)
    return (
        functools.partial(torch.mm, weight, x, out=y_room),
        functools.partial(weight.addmm_, y, x.t(), alpha=-1e-6),
        functools.partial(torch.mm, weight.t(), y, out=x_room),
    )


def _of_positions(piece: Piece) -> Sequence[Callable[[], object]]:
    """Likewise, every position with a matrix of its own that multiplies what it reads: a window of the padded input, or all of it."""
    if not isinstance(piece, ByPosition):
        msg = f"no products are known of a {type(piece).__name__}"
        raise TypeError(msg)
    geometry = piece.geometry
    (axis,) = geometry.axes
    read = (axis.kernel if piece.family.local else axis.size) * geometry.in_channels
    row = geometry.in_channels * BATCH
    pixels = torch.randn(axis.before + axis.size + axis.after, row)
    x = pixels.as_strided((axis.positions, read, BATCH), (axis.stride * row if piece.family.local else 0, BATCH, 1))
    weight = torch.randn(axis.positions, read, geometry.out_channels)
    y = torch.randn(axis.positions, geometry.out_channels, BATCH)
    y_room, x_room, gradient = torch.empty_like(y), torch.empty(x.shape), torch.empty_like(weight)
    return (
        functools.partial(torch.bmm, weight.transpose(1, 2), x, out=y_room),
        functools.partial(torch.bmm, x, y.transpose(1, 2), out=gradient),
        functools.partial(torch.bmm, weight, y, out=x_room),
    )


def case(relaxation: str) -> Case:
    return Case(
        title=f"a training step of the {NAMES[relaxation]} on MNIST-1D, batch {BATCH}",
        contenders={
            "torch.optim.SGD": functools.partial(plain, relaxation),
            "anarch, without chains": functools.partial(ours, relaxation, chained=False),
            OURS: functools.partial(ours, relaxation),
            PRODUCTS: functools.partial(products, relaxation),
        },
        flops=0,
        bytes=0,
        memory=False,
        steps=STEPS,
    )
