"""Products that skip zeros against dense ones."""

from __future__ import annotations

import importlib.util

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import nn

from anarch_core.ops import sparse_product
from anarch_core.ops.fused import fused_sgd, linear

pytest.importorskip("numba")


def factors(n, k, m, share, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(n, k, generator=generator, dtype=dtype) * (torch.rand(n, k, generator=generator) < share)
    return left, torch.randn(k, m, generator=generator, dtype=dtype), torch.randn(n, m, generator=generator, dtype=dtype)


@given(
    n=st.integers(1, 300),
    k=st.integers(1, 40),
    m=st.sampled_from([1, 7, 64, 1023, 1024, 1025, 2100]),
    share=st.floats(0, 1),
    beta=st.sampled_from([0.0, 0.5, 1.0]),
    alpha=st.floats(-2, 2),
)
def test_equals_the_dense_product(n, k, m, share, beta, alpha):
    left, right, out = factors(n, k, m, share)
    expected = beta * out + alpha * left @ right
    sparse_product.add_product(out, left, right, beta=beta, alpha=alpha)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)


def test_what_the_result_held_does_not_matter_where_it_is_not_kept():
    left, right, out = factors(5, 6, 7, 0.3)
    out.fill_(torch.nan)
    sparse_product.add_product(out, left, right, beta=0.0, alpha=1.0)
    torch.testing.assert_close(out, left @ right)


def test_a_transposed_left_factor(monkeypatch):
    monkeypatch.setattr(sparse_product, "TRANSPOSED", 4)
    left, right, out = factors(6, 5, 7, 0.3)
    expected = out + left @ right
    sparse_product.add_product(out, left.t().contiguous().t(), right, beta=1.0, alpha=1.0)
    torch.testing.assert_close(out, expected)


def test_the_same_bits_with_any_number_of_threads():
    found = []
    before = torch.get_num_threads()
    try:
        for threads in 1, 2:
            torch.set_num_threads(threads)
            left, right, out = factors(700, 50, 1500, 0.2, torch.float32)
            sparse_product.add_product(out, left, right, beta=0.9, alpha=-0.1)
            found.append(out)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_pays_only_where_large_sparse_and_possible(monkeypatch):
    monkeypatch.setattr(sparse_product, "LEAST", 100)
    left, right, out = factors(20, 30, 40, 0.1)
    assert sparse_product.pays(left, right, out)
    assert not sparse_product.pays(torch.ones_like(left), right, out)  # dense
    assert not sparse_product.pays(left[:1], right[:, :2].contiguous(), out[:1, :2].contiguous())  # small
    assert not sparse_product.pays(left, right.t().contiguous().t(), out)  # rows apart
    assert not sparse_product.pays(left.bfloat16(), right.bfloat16(), out.bfloat16())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not sparse_product.pays(left, right, out)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_step_is_that_of_the_dense_path(monkeypatch, decay):
    taken = []
    add_product = sparse_product.add_product
    monkeypatch.setattr(sparse_product, "add_product", lambda *a, **k: taken.append(a[0].shape) or add_product(*a, **k))
    found = []
    for least in 1, 2**60:
        monkeypatch.setattr(sparse_product, "LEAST", least)
        torch.manual_seed(0)
        weights = [nn.Parameter(torch.randn(size, dtype=torch.float64) / 4) for size in ((36, 12), (32, 9))]
        optimizer = torch.optim.SGD(weights, lr=0.1, weight_decay=decay)
        x = torch.randn(6, 12, dtype=torch.float64)
        with fused_sgd(optimizer):
            for weight in weights:
                x = nn.functional.max_pool1d(linear(x, weight, None).relu().view(6, 1, -1), 4).flatten(1)
            x.square().sum().backward()
            optimizer.step()
        found.append(weights)
    assert taken == [(6, 9), (32, 9), (36, 12)]  # the input gradient before the weight changes
    for sparse, dense in zip(*found, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-12, atol=1e-12)
