"""Kernels under ``torch.func``, and the joins that stand in for them, against a loop over the stack."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import example, given
from torch import nn
from torch.func import jvp, vmap

from anarch_core.lattice import ConvGeometry, label_counts
from anarch_core.lattice.families import LCN
from anarch_core.ops.bilinear import _InputGradient, _Product, _WeightGradient
from anarch_core.ops.depthwise import depthwise_plan
from anarch_core.ops.gathers import gather_plan
from anarch_core.ops.local import local_product
from anarch_core.ops.strip_plan import strip_plan
from anarch_core.ops.traced import traced_local_product
from anarch_core.testing.convolutions import Case, cases
from anarch_plugins.relaxations.shared.family import GLOBAL
from anarch_plugins.relaxations.shared.rows import row_kernels

ORDINARY = ConvGeometry.of(nn.Conv2d(2, 3, (2, 3), padding=(0, 1), dilation=(1, 2)), (4, 5))
GROUPED = ConvGeometry.of(nn.Conv1d(4, 2, 3, stride=2, padding=2, groups=2, padding_mode="circular"), (5,))
DEPTHWISE = ConvGeometry.of(nn.Conv2d(3, 6, 3, padding=1, groups=3, padding_mode="reflect"), (4, 4))
UNREAD = ConvGeometry.of(nn.Conv1d(1, 1, 1, stride=2, padding=1), (1,))
KERNELS = {
    "strips of padding alone": strip_plan(UNREAD),
    "gathers of padding alone": gather_plan(UNREAD, torch.device("cpu")),
    "strips": strip_plan(ORDINARY),
    "strips of groups": strip_plan(GROUPED),
    "gathers": gather_plan(ORDINARY, torch.device("cpu")),
    "gathers of groups": gather_plan(GROUPED, torch.device("cpu")),
    "depthwise": depthwise_plan(DEPTHWISE),
    "rows": row_kernels(GLOBAL, ORDINARY),
}


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=KERNELS)
def kernels(request):
    return KERNELS[request.param]


@pytest.mark.parametrize("product", [_Product, _InputGradient, _WeightGradient])
@pytest.mark.parametrize("in_dims", [dims for dims in itertools.product([None, 0, 1], repeat=2) if any(dim is not None for dim in dims)])
def test_stacks_of_either_factor(kernels, product, in_dims):
    x, y, weight = (3, *kernels.input_shape), (3, *kernels.output_shape), kernels.weight_shape
    shapes = {_Product: (x, weight), _InputGradient: (y, weight), _WeightGradient: (x, y)}[product]
    factors = []
    for seed, (shape, dim) in enumerate(zip(shapes, in_dims, strict=True)):
        stack = numbers(2, *shape, seed=seed)
        factors.append(stack[0] if dim is None else stack.movedim(0, dim))
    found = vmap(lambda left, right: product.apply(left, right, kernels), in_dims=in_dims)(*factors)
    for number in range(2):
        alone = (factor if dim is None else factor.select(dim, number) for factor, dim in zip(factors, in_dims, strict=True))
        close(found[number], product.apply(*alone, kernels))


def test_stacks_of_stacks(kernels):
    x, weight = numbers(2, 3, 1, *kernels.input_shape), numbers(2, *kernels.weight_shape)
    found = vmap(vmap(lambda x, weight: _Product.apply(x, weight, kernels), in_dims=(0, None)))(x, weight)
    for number in range(2):
        close(found[number], torch.stack([_Product.apply(each, weight[number], kernels) for each in x[number]]))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # PyTorch's own, in forward mode
@pytest.mark.parametrize("product", [_Product, _InputGradient, _WeightGradient])
def test_forward_mode_along_both_factors(kernels, product):
    x, y, weight = (3, *kernels.input_shape), (3, *kernels.output_shape), kernels.weight_shape
    shapes = {_Product: (x, weight), _InputGradient: (y, weight), _WeightGradient: (x, y)}[product]
    left, right = (numbers(*shape, seed=seed) for seed, shape in enumerate(shapes))
    along = tuple(numbers(*shape, seed=2 + seed) for seed, shape in enumerate(shapes))

    def of(left, right):
        return product.apply(left, right, kernels)

    value, moved = jvp(of, (left, right), along)
    close((value, moved), (of(left, right), of(left, along[1]) + of(along[0], right)))


NOTHING_READ = Case(nn.Conv1d(1, 1, 1, stride=2, padding=1, bias=False, dtype=torch.float64), numbers(2, 1, 1))


@given(case=cases())
@example(case=NOTHING_READ)
def test_a_graph_holds_the_same_product(case: Case) -> None:
    geometry = ConvGeometry.of(case.module, case.x.shape[2:])
    groups, outputs, inputs = geometry.channel_block
    weight = numbers(*label_counts(LCN, geometry), groups, inputs, outputs)
    close(traced_local_product(case.x, weight, geometry), local_product(case.x, weight, geometry))
