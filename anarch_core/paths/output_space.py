"""Paths that mix what two networks say: no weight is moved."""

from __future__ import annotations

import torch
from torch import nn

from anarch_core.data.stored import batches
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import ProbeError
from anarch_core.models import input_dtype
from anarch_core.network import undisturbed
from anarch_core.objective.base import AbstractObjective
from anarch_core.objective.outputs import outputs_of
from anarch_core.paths.curves import fractions
from anarch_core.paths.profile import Method, Profile
from anarch_core.training.evaluation import Score, Tally


@torch.no_grad()
def output_space(a: nn.Module, b: nn.Module, data: TensorData, method: Method, points: int) -> Profile:
    """Mix the outputs of both networks: one forward pass of each serves every point."""
    scores: list[list[Score]] = []
    for x, y in ((data.inputs("train"), data.y_train), (data.inputs("test"), data.y_test)):
        said = []
        for model in (a, b):
            with undisturbed(model), torch.no_grad():
                wanted = [slice(start, start + 1000) for start in range(0, len(y), 1000)]
                parts = zip(batches(x.to(dtype=input_dtype(model, x[:1])), wanted), torch.split(y, 1000), strict=True)
                outputs = torch.cat([outputs_of(model, inputs, targets, data.objective) for inputs, targets in parts]).double()
            said.append(outputs if method == "logits" else outputs.softmax(1))
        if said[0].shape != said[1].shape:
            msg = f"the networks tell {said[0].shape[1]} and {said[1].shape[1]} classes apart, so what they say cannot be mixed"
            raise ProbeError(msg)
        scores.append([_mixed_score(_mixed(said[0], said[1], t), y, method, data.objective) for t in fractions(points)])
    return Profile(method=method, positions=fractions(points), train=scores[0], test=scores[1])


def _mixed(a: torch.Tensor, b: torch.Tensor, t: float) -> torch.Tensor:
    """What is said at a position; that of the network alone at its end, whatever the other one says."""
    return {0.0: a, 1.0: b}.get(t, torch.where(a == b, a, torch.lerp(a, b, t)))


def _mixed_score(outputs: torch.Tensor, targets: torch.Tensor, method: Method, objective: AbstractObjective) -> Score:
    if method == "probabilities":  # the softmax of their logarithms is what they are
        outputs = outputs.clamp_min(torch.finfo(outputs.dtype).tiny).log()
    tally = Tally.empty(objective, outputs.device)
    tally.loss += objective.loss(outputs, targets, "sum")
    tally.count(outputs, targets)
    return tally.score(len(targets))
