"""Outputs of classes of positions are put together alike in a graph and outside of one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from anarch_plugins.relaxations.tiled.interleaved import Interleaved, interleave

axes = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 3)), min_size=1, max_size=3)


@given(axes=axes)
def test_a_graph_holds_the_same(axes):
    size, classes = tuple(length for length, _ in axes), tuple(min(count, length) for length, count in axes)
    where = torch.cartesian_prod(*(torch.arange(count) for count in classes)).view(-1, len(classes)).tolist()
    places = [[len(range(first, length, count)) for first, length, count in zip(each, size, classes, strict=True)] for each in where]
    parts = [torch.full((2, 3, *shape), float(number)) for number, shape in enumerate(places)]
    expected = Interleaved.apply(size, classes, False, *parts)
    torch.testing.assert_close(interleave(parts, size, classes), expected, rtol=0, atol=0)
    for number, each in enumerate(where):
        assert expected[(0, 0, *each)] == number


@pytest.mark.parametrize("laid_out", [False, True])
def test_parts_of_a_stack_and_parts_that_are_the_same_for_all(laid_out):
    left, right = torch.randn(4, 2, 3, 2), torch.randn(2, 3, 1)
    found = torch.func.vmap(lambda left, right: Interleaved.apply((3,), (2,), laid_out, left, right), in_dims=(0, None))(left, right)
    expected = torch.stack([Interleaved.apply((3,), (2,), laid_out, each, right) for each in left])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
