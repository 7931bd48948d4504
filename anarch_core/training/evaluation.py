"""How well a network does on some data: its loss and the scores of an objective."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import attrs
import torch
from torch import nn

from anarch_core.config.values import Precision
from anarch_core.data.stored import Inputs, batches
from anarch_core.errors import ConfigError
from anarch_core.network import in_evaluation_mode
from anarch_core.objective.base import AbstractObjective
from anarch_core.objective.classification import CrossEntropy
from anarch_core.objective.outputs import outputs_of
from anarch_core.ops.memory_format import channels_last, takes_channels_last
from anarch_core.training.precision import autocast

EVALUATED = 1000
"""Samples that a network is evaluated on at a time."""


@attrs.frozen
class Score:
    """How well a network does on some data.

    Attributes:
        loss: mean loss of the objective.
        metrics: its scores by name; each is an attribute, too: ``score.accuracy``.
    """

    loss: float
    metrics: Mapping[str, float]

    def __getattr__(self, name: str) -> float:
        """A score by its name."""
        try:
            return self.metrics[name]
        except KeyError:
            msg = f"there is no score {name!r}; there are {', '.join(['loss', *self.metrics])}"
            raise AttributeError(msg) from None


@attrs.define(eq=False)
class Tally:
    """The running sums behind a score, on the device: nothing waits for it until the score is asked for.

    Attributes:
        objective: what is learnt.
        loss: sum of the losses of samples, float64.
        totals: sums of what the objective tallies, by name.
    """

    objective: AbstractObjective
    loss: torch.Tensor
    totals: dict[str, torch.Tensor] = attrs.field(factory=dict)

    @classmethod
    def empty(cls, objective: AbstractObjective, device: torch.device) -> Tally:
        """Of no sample."""
        return cls(objective, torch.zeros((), dtype=torch.float64, device=device))

    def count(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Add the samples of a batch, but for their loss."""
        for name, tensor in self.objective.tally(outputs, targets).items():
            if name in self.totals:
                self.totals[name].add_(tensor)
            else:
                self.totals[name] = tensor.clone()

    def score(self, samples: int) -> Score:
        """The means over so many samples; they are counted afresh from now on."""
        score = Score(self.loss.item() / samples, dict(self.objective.scores(self.totals, samples)))
        self.loss.zero_()
        for tensor in self.totals.values():
            tensor.zero_()
        return score


@torch.no_grad()
def evaluate(
    model: nn.Module,
    x: Inputs,
    y: torch.Tensor,
    batch: int = EVALUATED,
    *,
    precision: Precision = "float32",
    objective: AbstractObjective | None = None,
) -> Score:
    """Loss and scores in eval mode; every module's mode is put back.

    Args:
        model: the network.
        x: inputs [n, channels, *spatial] on the model's device, or read to it a batch at a time.
        y: targets [n, ...], for a classification int64 [n].
        batch: samples per forward pass.
        precision: as in training.
        objective: what is measured, ``data.objective``; classification by cross-entropy if None.

    Raises:
        ConfigError: the network gives something else than the objective expects, or tells fewer classes apart than there are.
    """
    objective = objective or CrossEntropy()
    tally = Tally.empty(objective, x.device)
    wanted = [slice(start, start + batch) for start in range(0, len(x), batch)]
    with in_evaluation_mode(model), contextlib.closing(batches(x, wanted)) as read:
        laid_out = takes_channels_last(model, x[:2])
        for inputs, targets in zip(read, torch.split(y, batch), strict=True):
            with autocast(precision, x.device):
                outputs = outputs_of(model, channels_last(inputs) if laid_out else inputs, targets, objective)
            if not tally.totals and (problem := objective.mismatch(outputs, y)) is not None:
                msg = f"{problem} (network {type(model).__name__})"
                raise ConfigError(msg)
            tally.loss += objective.loss(outputs.to(torch.promote_types(outputs.dtype, torch.float32)), targets, "sum")
            tally.count(outputs, targets)
    return tally.score(len(y))
