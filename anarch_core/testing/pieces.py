"""Checks of the pieces that relaxed layers give of themselves: what is trained in a chain is the layer."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from anarch_core.layers.base import RelaxedLayer
from anarch_core.ops.chain import Chain
from anarch_core.ops.fused import fused_sgd
from anarch_core.ops.piece import Piece
from anarch_core.testing.cases import Case, disturb
from anarch_core.testing.subject import RelaxationSubject
from anarch_core.training.pieces import piece_of

TO_ROUNDING = 1e-10
RATE, DECAY = 0.3, 0.01


class PieceChecks(RelaxationSubject):
    """A layer, called with one batch of inputs, gives the same as a piece of a chain, and descends there as the optimizer does."""

    def test_piece_is_the_layer(self) -> None:
        """Where `piece()` gives one, a chain of it has the layer's outputs and gradients in float64, for batches of several sizes."""

        def check(case: Case, layer: RelaxedLayer, piece: Piece) -> None:
            chain, parameters = Chain([piece]), dict(layer.named_parameters())
            for x in (case.x, 2 * case.x.flip(0), case.x[:1]):
                mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
                y, expected = chain(mine), layer(theirs)
                assert y.shape == expected.shape, f"as a piece the layer gives {list(y.shape)}, called {list(expected.shape)}"
                error = _apart(y.detach(), expected.detach())
                assert error <= TO_ROUNDING, f"as a piece the layer gives something else than forward(), by {error:.1e}; {ADVICE}"
                weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
                found = torch.autograd.grad((y * weights).sum(), [mine, *parameters.values()], allow_unused=True)
                wanted = torch.autograd.grad((expected * weights).sum(), [theirs, *parameters.values()], allow_unused=True)
                for name, gradient, reference in zip(("its inputs", *parameters), found, wanted, strict=True):
                    _require_alike(name, gradient, reference)

        self._on_pieces(check)

    def test_piece_descends_as_the_optimizer(self) -> None:
        """Trained by plain descent with weight decay, the parameters of a piece take the optimizer's step within the backward pass."""

        def check(case: Case, layer: RelaxedLayer, piece: Piece) -> None:
            twin = copy.deepcopy(layer)
            twin(case.x).square().sum().backward()
            torch.optim.SGD(twin.parameters(), lr=RATE, weight_decay=DECAY).step()
            with fused_sgd(torch.optim.SGD(layer.parameters(), lr=RATE, weight_decay=DECAY)):
                Chain([piece])(case.x).square().sum().backward()  # type: ignore[no-untyped-call]
            for (name, parameter), reference in zip(layer.named_parameters(), twin.parameters(), strict=True):
                if not any(parameter is each for each in piece.parameters):
                    continue
                assert parameter.grad is None, f"{name} has a gradient after it has descended"
                error = _apart(parameter.detach(), reference.detach())
                assert error <= TO_ROUNDING, (
                    f"accumulate() moves {name} by another step than SGD takes, by {error:.1e}: with out=None the parameter itself becomes "
                    "beta * parameter + alpha * gradient"
                )

        self._on_pieces(check)

    def _on_pieces(self, check: Callable[[Case, RelaxedLayer, Piece], None]) -> None:
        """Check generated layers that give a piece."""

        def taken(case: Case, layer: RelaxedLayer) -> None:
            disturb(layer)
            piece = self._piece(case, layer)
            if piece is not None:
                check(case, layer, piece)

        self.on_generated(taken)

    def _piece(self, case: Case, layer: RelaxedLayer) -> Piece | None:
        """The piece that a chain takes of a layer which is called with one batch of inputs."""
        batch = len(case.args) == 1 and not case.kwargs and case.calls == 1 and isinstance(case.x, torch.Tensor)
        if not batch or case.x.ndim < 2 or not case.x.is_floating_point():
            return None
        shape, given = tuple(case.x.shape[1:]), layer.train().piece()
        if given is None:
            return None
        own = dict(layer.named_parameters())
        strange = sum(not any(parameter is each for each in own.values()) for parameter in given.parameters)
        assert not strange, f"{strange} of the parameters of its piece are no parameters of the layer; give the parameters themselves"
        assert len(given.parameters) == len(set(map(id, given.parameters))), "a parameter is in its piece twice"
        if self.relaxation().sized:
            made = f"a piece for inputs of {list(given.input_shape)}, and is called with {list(shape)}"
            assert given.input_shape == shape, f"the layer gives {made}; without the batch"
        return piece_of(layer, shape)


def _apart(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest deviation, over the largest expected value where that is above one."""
    error, size = (actual - expected).detach().abs(), expected.detach().abs()
    return float(error.max() / size.max().clamp(min=1.0)) if error.numel() else 0.0


ADVICE = "it has to be the layer to rounding; return None in piece() for layers of which it is not"


def _require_alike(name: str, gradient: torch.Tensor | None, reference: torch.Tensor | None) -> None:
    if reference is None:
        assert gradient is None or not gradient.any(), f"as a piece the layer has a gradient by {name}, on which nothing depends"
        return
    assert gradient is not None, f"as a piece the layer has no gradient by {name}; name its parameters in `parameters`"
    error = _apart(gradient, reference)
    assert error <= TO_ROUNDING, f"as a piece the layer has another gradient by {name} than autograd gives, by {error:.1e}"
