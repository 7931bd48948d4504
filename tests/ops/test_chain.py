"""A chain of layers against the layers it is made of, under autograd."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from anarch_core.errors import SurgeryError
from anarch_core.ops.by_position import ByPosition, readable
from anarch_core.ops.chain import Chain
from anarch_core.ops.fused import Whole, clip_norm, fused_sgd
from anarch_core.relaxation.verbs import relax
from anarch_core.testing.convolutions import cases as convolutions
from anarch_core.training.pieces import piece_of

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")

TO_ROUNDING = 1e-10
DOUBLE = torch.float64


def chain_of(*layers: nn.Module, shape: tuple[int, ...]) -> Chain:
    """All of the layers as one chain, whether that pays or not."""
    pieces = []
    for layer in layers:
        piece = piece_of(layer, shape)
        assert piece is not None, layer
        pieces.append(piece)
        shape = piece.output_shape
    return Chain(pieces)


def assert_alike(chain: Chain, layers: nn.Module, x: torch.Tensor) -> None:
    """Outputs, and the gradients by inputs and parameters of a loss that weighs every output otherwise."""
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = chain(mine), layers(theirs)
    assert y.shape == expected.shape
    assert y.is_contiguous()
    torch.testing.assert_close(y, expected, rtol=0, atol=TO_ROUNDING)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    parameters = list(layers.parameters())
    found = torch.autograd.grad((y * weights).sum(), [mine, *parameters])
    wanted = torch.autograd.grad((expected * weights).sum(), [theirs, *parameters])
    for gradient, reference in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=0, atol=TO_ROUNDING)


@given(case=convolutions(modes=("zeros",)))
def test_any_ungrouped_convolution(case):
    assume(case.module.groups == 1)
    assert_alike(chain_of(case.module, shape=tuple(case.x.shape[1:])), case.module, case.x)


@pytest.mark.parametrize("relaxation", ["lcn", "tiled", "shared", "efcn"])
@given(data=st.data())
def test_any_relaxation_of_one(relaxation, data):
    case = data.draw(convolutions(modes=("zeros",)))
    options = {"period": data.draw(st.integers(1, 3))} if relaxation == "tiled" else {}
    try:
        layer = relax(case.module, relaxation, example_input=case.x, options=options, check=False).model
    except SurgeryError:
        assume(False)
    torch.nn.init.normal_(layer.weight)
    piece = layer.piece()
    assume(piece is not None)
    assert_alike(Chain([piece]), layer, case.x)


@given(case=convolutions())
def test_what_it_does_not_understand_has_no_piece(case):
    understood = case.module.groups == 1 and case.module.padding_mode == "zeros"
    assert (piece_of(case.module, tuple(case.x.shape[1:])) is not None) == understood


@pytest.fixture
def layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, stride=2), nn.ReLU(), nn.Conv2d(3, 4, (2, 3), bias=False), nn.Tanh(), nn.Flatten(),
        nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3, bias=False),
    ).double()  # fmt: skip


SHAPE = (2, 8, 9)


def inputs(batch: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


def test_several_layers_of_several_kinds(layers):
    assert_alike(chain_of(*layers, shape=SHAPE), layers, inputs())


def test_a_batch_of_another_size_and_one_that_is_empty(layers):
    chain = chain_of(*layers, shape=SHAPE)
    for batch in (6, 1, 4, 6, 0):
        assert_alike(chain, layers, inputs(batch))


def test_inputs_that_are_channels_last(layers):
    assert_alike(chain_of(*layers, shape=SHAPE), layers, inputs().contiguous(memory_format=torch.channels_last))


def test_two_ways_through_it_before_the_first_way_back(layers):
    chain, first, second = chain_of(*layers, shape=SHAPE), inputs(seed=1), inputs(seed=2)
    expected = torch.autograd.grad(layers(first).square().sum() + layers(second).sum(), layers.parameters())
    found = torch.autograd.grad(chain(first).square().sum() + chain(second).sum(), layers.parameters())
    for gradient, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=0, atol=TO_ROUNDING)


def test_what_it_gave_is_not_overwritten(layers):
    chain = chain_of(*layers, shape=SHAPE)
    with torch.no_grad():
        y = chain(inputs(seed=1))
        kept = y.clone()
        chain(inputs(seed=2))
    assert torch.equal(y, kept)


def test_a_layer_that_occurs_twice(layers):
    torch.manual_seed(0)
    twice = nn.Linear(7, 7).double()
    x = torch.randn(4, 7, dtype=DOUBLE)
    chain, row = chain_of(twice, nn.Tanh(), twice, shape=(7,)), nn.Sequential(twice, nn.Tanh(), twice)
    assert_alike(chain, row, x)
    expected = torch.autograd.grad(row(x).square().sum(), twice.parameters())
    with fused_sgd(torch.optim.SGD(twice.parameters(), lr=0.1)):
        chain(x).square().sum().backward()
    for parameter, reference in zip(twice.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, reference, rtol=0, atol=TO_ROUNDING)


def test_parameters_that_are_held_fast_have_no_gradient(layers):
    layers[0].weight.requires_grad_(False)
    chain_of(*layers, shape=SHAPE)(inputs()).sum().backward()
    assert layers[0].weight.grad is None
    assert layers[0].bias.grad is not None


@pytest.mark.parametrize("alone", [True, False])
def test_it_descends_as_the_optimizer_does(layers, alone):
    chain, x, y = chain_of(*layers, shape=SHAPE), inputs(), torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.3, weight_decay=0.01)
    start = [parameter.detach().clone() for parameter in layers.parameters()]
    gradients = torch.autograd.grad(cross_entropy(layers(x), y), layers.parameters())
    with fused_sgd(optimizer):
        if alone:
            outputs, loss = chain.descend(
                x, lambda outputs: (cross_entropy(outputs, y), (outputs.softmax(1) - torch.eye(3, dtype=DOUBLE)[y]) / 6)
            )
            torch.testing.assert_close(loss, cross_entropy(outputs, y))
        else:
            cross_entropy(chain(x), y).backward()
    assert all(parameter.grad is None for parameter in layers.parameters())
    for parameter, before, gradient in zip(layers.parameters(), start, gradients, strict=True):
        torch.testing.assert_close(parameter.detach(), before - 0.3 * (gradient + 0.01 * before), rtol=0, atol=TO_ROUNDING)


def test_descending_it_tells_the_norm_of_its_gradients(layers):
    chain, whole = chain_of(*layers, shape=SHAPE), Whole(None)
    gradients = torch.autograd.grad(layers(inputs()).square().sum(), layers.parameters())
    optimizer = torch.optim.SGD(layers.parameters(), lr=0.3)
    with fused_sgd(optimizer, whole):
        chain(inputs()).square().sum().backward()
        norm = clip_norm(optimizer, whole)
    assert all(parameter.grad is None for parameter in layers.parameters())
    torch.testing.assert_close(norm, torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients])))


def test_outside_of_a_step_it_changes_nothing(layers):
    before = [parameter.detach().clone() for parameter in layers.parameters()]
    chain_of(*layers, shape=SHAPE)(inputs()).sum().backward()
    assert all(torch.equal(parameter, start) for parameter, start in zip(layers.parameters(), before, strict=True))


def test_a_graph_is_gone_back_through_once(layers):
    loss = chain_of(*layers, shape=SHAPE)(inputs()).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="gone back through already"):
        loss.backward()


def test_it_is_differentiated_once(layers):
    x = inputs().requires_grad_()
    (gradient,) = torch.autograd.grad(chain_of(*layers, shape=SHAPE)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_nothing_is_unfolded_along_one_axis():
    conv = nn.Conv1d(4, 8, 5, stride=2, padding=2)
    piece = piece_of(conv, (4, 40))
    assert isinstance(piece, ByPosition)
    read = piece.opened(10, conv.weight.detach())._windows.read
    assert read.untyped_storage().nbytes() < read.numel() * read.element_size()


@pytest.mark.parametrize(("module", "shape", "pays"), [
    (nn.Conv1d(25, 25, 3, stride=2, padding=1), (25, 20), True),
    (nn.Conv1d(16, 16, 5, padding=2), (16, 1024), False),
    (nn.Conv2d(64, 64, 5, padding=2), (64, 8, 8), False),
    (nn.Conv2d(64, 64, 3, stride=2, padding=1), (64, 4, 4), True),
    (nn.Linear(500, 250), (500,), True),
    (nn.Linear(4096, 4096), (4096,), False),
])  # fmt: skip
def test_the_sizes_that_pay(module, shape, pays):
    assert piece_of(module, shape).pays(100) == pays


def test_geometries_that_are_read_position_by_position():
    conv = nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular")
    lcn = relax(conv, "lcn", example_input=torch.zeros(1, 2, 5)).model
    assert not readable(lcn.family, lcn.geometry)
    assert lcn.piece() is None
