"""However siblings are trained, they learn the same."""

from __future__ import annotations

import pytest
import siblings
import torch


@pytest.mark.parametrize("relaxation", siblings.RELAXATIONS)
@pytest.mark.parametrize("contender", [siblings.mapped, siblings.by_hand, siblings.by_hand_one_by_one])
def test_batched_siblings_equal_those_trained_one_by_one_to_rounding(contender, relaxation) -> None:
    seeds = [3, 5]
    results = []
    for train in siblings.one_by_one, contender:
        step, weights = train(relaxation, seeds)
        before = {name: tensor.detach().clone() for name, tensor in weights().items()}
        step()
        step()
        results.append(weights())
    for name, expected in results[0].items():
        moved = (expected.detach() - before[name]).abs().max().item()
        assert moved > 1e-5
        torch.testing.assert_close(results[1][name], expected, rtol=0, atol=1e-3 * moved)


def test_siblings_differ() -> None:
    _, weights = siblings.one_by_one("efcn", [3, 5])
    assert all(not torch.equal(*tensor) for tensor in weights().values())
    (first, _), (second, _) = (next(siblings.batches([seed])) for seed in (3, 5))
    assert not torch.equal(first, second)
