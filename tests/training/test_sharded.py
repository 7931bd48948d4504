"""A network that several processes hold together is trained by the norm of its whole gradient as one process trains it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import anarch_core
from anarch_core.sharding import Shards, cuts_of
from anarch_core.testing.together import together
from anarch_core.training.loop import Training

SAMPLES, STEPS = 12, 3


def trained(shards: Shards, family: str, clip_norm: float | None, momentum: float) -> dict[str, Any]:
    """Two epochs in float64, by one process alone and by all together."""
    torch.manual_seed(0)
    features = [nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(5, 7, 3, padding=1), nn.ReLU(), nn.Flatten()]
    cnn = nn.Sequential(*features, nn.Linear(63, 4)).double()
    x, y = torch.randn(SAMPLES, 2, 6, 6, dtype=torch.float64), torch.arange(SAMPLES) % 4
    models, norms = [], []
    for way in None, shards:
        model = anarch_core.relax(cnn, family, example_input=x[:1], shards=way).model
        loop = Training(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0, momentum=momentum),
            x=x,
            y=y,
            batch_size=SAMPLES // STEPS,
            seed=3,
            learning_rate=lambda _: 0.3,
            clip_norm=clip_norm,
            follow_gradient=True,
        )
        told = []
        for _ in range(2):
            loop.advance(loop.iteration + STEPS)
            loop.end_epoch()
            told.append(loop.gradient_norm)
        models.append(model)
        norms.append(told)
    alone, shared = models
    cuts, whole = cuts_of(shared), alone.state_dict()
    apart = [
        (tensor.flatten() - (cuts[name].of_whole(whole[name]) if name in cuts else whole[name].flatten())).abs().max()
        for name, tensor in shared.state_dict().items()
    ]
    return {"alone": norms[0], "together": norms[1], "apart": float(max(apart))}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("clip_norm", [0.05, None])
@pytest.mark.parametrize("family", ["efcn", "lcn"])
def test_its_norm_is_followed_and_shortened_as_of_one_process(family: str, clip_norm: float | None, momentum: float) -> None:
    first, second = together(2, trained, family, clip_norm, momentum)
    assert first["together"] == second["together"]
    for found in first, second:
        assert found["together"] == pytest.approx(found["alone"], rel=1e-12)
        assert found["apart"] < 1e-13
