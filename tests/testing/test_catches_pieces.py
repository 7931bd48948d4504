"""A layer whose piece is another layer than its forward pass is found, and what to mend is said.

Each test breaks the piece of a layer of the lattice in one place and runs the check that has to notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from anarch_core.lattice.families import FullyConnected, LocallyConnected
from anarch_core.layers import FullyConnectedLayer, LocallyConnectedLayer
from anarch_core.ops import Pass, Piece
from anarch_core.ops.full_product import FullProduct
from anarch_core.relaxation import AbstractLatticeRelaxation
from anarch_core.testing import RelaxationConformance
from anarch_core.testing.convolutions import plain

Kit = Callable[..., Any]


def relaxing(layer: type = FullyConnectedLayer, **methods: Any) -> type:
    """A relaxation whose layers have other methods."""
    family = FullyConnected(name="wrong") if issubclass(layer, FullyConnectedLayer) else LocallyConnected(name="wrong")
    return type("Wrong", (AbstractLatticeRelaxation,), {"layer_class": type("Layer", (layer,), methods), "family": family})


def product(layer: FullyConnectedLayer, kind: type[FullProduct] = FullProduct, bias: nn.Parameter | None = None) -> FullProduct:
    """The right piece, or one of another kind or with another bias."""
    g = layer.geometry
    bias = layer.bias if bias is None else bias
    return kind(layer.weight, bias, (g.in_channels, *g.input_size), (g.out_channels, *g.output_size))


class Around(Pass):
    """A pass that may be wrong in one place."""

    def __init__(self, inner: Pass) -> None:
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner.forward(x)

    def backward(self, grad: torch.Tensor, *, wanted: bool) -> torch.Tensor | None:
        return self.inner.backward(grad, wanted=wanted)

    def accumulate(self, which: int, out: torch.Tensor | None, *, beta: float, alpha: float) -> None:
        self.inner.accumulate(which, out, beta=beta, alpha=alpha)


def with_pass(**methods: Any) -> Callable[[FullyConnectedLayer], Piece]:
    """A piece whose passes have other methods."""
    around = type("Wrong", (Around,), methods)
    kind = type("Piece", (FullProduct,), {"opened": lambda self, batch, like: around(FullProduct.opened(self, batch, like))})
    return lambda layer: product(layer, kind)


def _twice_the_gradient(self: Around, which: int, out: torch.Tensor | None, *, beta: float, alpha: float) -> None:
    self.inner.accumulate(which, out, beta=beta, alpha=2 * alpha)


def _half_of_what_comes_back(self: Around, grad: torch.Tensor, *, wanted: bool) -> torch.Tensor | None:
    back = self.inner.backward(grad, wanted=wanted)
    return None if back is None else back / 2


def _no_decay(self: Around, which: int, out: torch.Tensor | None, *, beta: float, alpha: float) -> None:
    self.inner.accumulate(which, out, beta=1.0 if out is None else beta, alpha=alpha)


def _only_the_first_pass(self: Around, x: torch.Tensor) -> torch.Tensor:
    self.kept = getattr(self, "kept", None)
    if self.kept is None:
        self.kept = self.inner.forward(x).clone()
    return self.kept


def _without_bias(layer: FullyConnectedLayer) -> Piece:
    g = layer.geometry
    return FullProduct(layer.weight, None, (g.in_channels, *g.input_size), (g.out_channels, *g.output_size))


def _unnamed_bias(layer: FullyConnectedLayer) -> Piece:
    piece = product(layer)

    class Constant(Around):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.inner.forward(x)
            return y if layer.bias is None else y + layer.bias.detach().unsqueeze(1)

    kind = type("Piece", (FullProduct,), {"opened": lambda self, batch, like: Constant(FullProduct.opened(self, batch, like))})
    return kind(layer.weight, None, piece.input_shape, piece.output_shape)


def _copied_weight(layer: FullyConnectedLayer) -> Piece:
    g = layer.geometry
    return FullProduct(
        nn.Parameter(layer.weight.detach().clone()), layer.bias, (g.in_channels, *g.input_size), (g.out_channels, *g.output_size)
    )


def _with_a_batch(layer: FullyConnectedLayer) -> Piece:
    piece = product(layer)
    piece.input_shape = (2, *piece.input_shape)
    return piece


def _as_features(layer: FullyConnectedLayer) -> Piece:
    piece = product(layer)
    piece.output_shape = (layer.geometry.out_channels * layer.geometry.positions,)
    return piece


SAME, STEP = "test_piece_is_the_layer", "test_piece_descends_as_the_optimizer"

FAULTS: list[tuple[str, Callable[[FullyConnectedLayer], Piece], str]] = [
    ("test_piece_is_the_layer", with_pass(accumulate=_twice_the_gradient), "has another gradient by weight than autograd gives, by"),
    ("test_piece_is_the_layer", with_pass(backward=_half_of_what_comes_back), "has another gradient by its inputs than autograd gives"),
    (
        "test_piece_is_the_layer",
        with_pass(forward=_only_the_first_pass),
        r"gives something else than forward\(\), by .*to rounding; return",
    ),
    ("test_piece_is_the_layer", _without_bias, r"gives something else than forward\(\)"),
    ("test_piece_is_the_layer", _unnamed_bias, "has no gradient by bias; name its parameters in `parameters`"),
    ("test_piece_is_the_layer", _copied_weight, "1 of the parameters of its piece are no parameters of the layer"),
    ("test_piece_is_the_layer", _with_a_batch, r"gives a piece for inputs of \[2, .*; without the batch"),
    ("test_piece_is_the_layer", _as_features, r"as a piece the layer gives \[2, \d+\], called \[2, \d+, \d+"),
    (
        "test_piece_descends_as_the_optimizer",
        with_pass(accumulate=_no_decay),
        r"accumulate\(\) moves weight by another step than SGD takes",
    ),
]


@pytest.mark.parametrize(("check", "piece", "message"), FAULTS, ids=range(len(FAULTS)))
def test_a_wrong_piece(fails: Kit, plugin: Kit, check: str, piece: Any, message: str) -> None:
    plugin("relaxation", relaxing(piece=piece))
    fails(RelaxationConformance, check, message, cases=lambda self: st.builds(lambda: plain(1)), examples=1)


METHODS: list[Mapping[str, Any]] = [
    {},
    {"piece": product},
    {"piece": with_pass()},
    {"piece": lambda self: None},
    {"forward": lambda self, x: 2 * FullyConnectedLayer.forward(self, x)},  # it says nothing of how it is taken
]


@pytest.mark.parametrize("check", [SAME, STEP])
@pytest.mark.parametrize("methods", METHODS, ids=range(len(METHODS)))
def test_a_right_piece(passes: Kit, plugin: Kit, check: str, methods: Mapping[str, Any]) -> None:
    plugin("relaxation", relaxing(**methods))
    passes(RelaxationConformance, check, examples=5, dims=(1, 2))


def test_a_piece_of_another_relaxation(fails: Kit, plugin: Kit) -> None:
    """By position, with a bias of another layout."""

    def piece(layer: LocallyConnectedLayer) -> Piece | None:
        made = layer.by_position()
        if made is not None:
            made.bias_view = lambda tensor: tensor.movedim(0, -1).flip(0)
        return made

    plugin("relaxation", relaxing(LocallyConnectedLayer, piece=piece))
    fails(RelaxationConformance, SAME, r"gives something else than forward\(\)", cases=lambda self: st.builds(lambda: plain(1)), examples=1)
