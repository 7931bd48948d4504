"""Whatever PyTorch's settings of float32 products are, they are exact where that is asked for, and found again."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from anarch_core.float32_products import Float32Products, float32_products
from anarch_core.relaxation.verbs import relax
from anarch_core.training.precision import matmul_precision

NEW = hasattr(torch.backends.cuda.matmul, "fp32_precision")


def word(text):
    torch.set_float32_matmul_precision(text)


def flag(on):
    torch.backends.cuda.matmul.allow_tf32 = on


def library(precision):
    torch.backends.cuda.matmul.fp32_precision = precision


def convolutions(precision):
    torch.backends.cudnn.conv.fp32_precision = precision


WAYS = {
    "as they are": lambda: None,
    "high": lambda: word("high"),
    "medium": lambda: word("medium"),
    "the flag": lambda: flag(True),
    "high, then without the flag": lambda: (word("high"), flag(False)),
    **({"the library": lambda: library("tf32"), "convolutions": lambda: convolutions("ieee")} if NEW else {}),
}
"""Ways to set them that users have; PyTorch takes some for a mixture of old and new, and refuses to say what it is."""


@pytest.fixture(autouse=True)
def _put_back():
    found = Float32Products.found()
    yield
    found.put_back()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_inside_products_are_exact_and_afterwards_what_they_were(way):
    way()
    found = Float32Products.found()
    with float32_products(tf32=False):
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cudnn.allow_tf32
        with float32_products(tf32=True):
            assert torch.backends.cuda.matmul.allow_tf32
            assert torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    assert Float32Products.found() == found


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_networks_are_relaxed_however_they_were_set(way):
    way()
    found = Float32Products.found()
    cnn = nn.Sequential(nn.Conv1d(1, 2, 3, padding=1))
    for precision in ("tf32", "float32", "tf32"):
        with matmul_precision(precision):
            relax(cnn, "efcn", example_input=torch.randn(2, 1, 6))
        relax(cnn, "efcn", example_input=torch.randn(2, 1, 6))
    assert Float32Products.found() == found
