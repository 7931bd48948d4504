"""The floor of a step on a card is that of the products that it cannot do without."""

from __future__ import annotations

import dense
import gpu
import pytest
import torch
from on_card import SMALL, Size

CPU = torch.device("cpu")


@pytest.mark.parametrize(("flops", "bytes"), [(1e12, 1e30), (1e30, 1e12)], ids=["products", "memory"])
def test_the_floor_is_that_of_the_dense_products(flops, bytes):
    case, rates = dense.case(), gpu.Rates({"tf32": flops}, bytes)
    model = gpu.vanilla("efcn", Size(), CPU)
    assert gpu.floor(model, Size().batch, "tf32", rates) == pytest.approx(max(case.flops / flops, case.bytes / bytes))


def test_a_network_that_was_not_relaxed_has_none():
    assert gpu.floor(gpu.vanilla("cnn", SMALL, CPU), 10, "tf32", gpu.Rates({"tf32": 1.0}, 1.0)) is None


def test_products_of_the_hessian_are_counted():
    (table,) = gpu.eigenvalue(CPU, SMALL)
    for _, rate, _, products, value in table.rows:
        assert float(rate) > 0
        assert int(products) >= 2
        assert float(value) > 0


def test_an_unknown_case_is_told(capsys):
    with pytest.raises(SystemExit):
        gpu.main(["sizes"])
    assert "no case 'sizes'; there are steps, eigenvalue, memory, siblings" in capsys.readouterr().err
