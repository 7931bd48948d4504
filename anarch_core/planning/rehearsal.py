"""The memory of a step, found by taking it on tensors that hold no numbers.

The network that would be trained, the loop and the optimizer are the real ones, so what autograd keeps, what a relaxation's layers hold
besides and that a fused update needs no gradient are counted by no rule but their own code, for any network.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator

import attrs
import torch
from torch import nn

from anarch_core.config.values import Precision
from anarch_core.data.stored import Inputs
from anarch_core.objective.base import AbstractObjective
from anarch_core.objective.classification import CrossEntropy
from anarch_core.planning.hollow import Hollow, emptied, hollowed
from anarch_core.planning.ledger import Ledger, Peak
from anarch_core.relaxation.copying import replace
from anarch_core.relaxation.passes import keep_passes_told
from anarch_core.relaxation.selection import Selection
from anarch_core.relaxation.shared_out import lifted
from anarch_core.sharding.imagined import Imagined
from anarch_core.training.evaluation import evaluate
from anarch_core.training.loop import Training
from anarch_core.training.penalty import Penalties


class Rehearsal:
    """A network whose tensors hold no numbers.

    Args:
        model: the network it is a copy of; not changed.
        processes: that are to hold relaxed layers together; the part of the first one is rehearsed, whose stretches are the longest.

    Attributes:
        sent: bytes that the process sends to the others in a training step, as far as one was rehearsed.
    """

    def __init__(self, model: nn.Module, processes: int = 1) -> None:
        self.model = hollowed(model)
        self.sent = 0
        self._shards = Imagined(processes) if processes > 1 else None

    def relax(self, found: Selection) -> None:
        """Put relaxed layers in the place of those that were found in the original network."""
        for site in found.sites:
            hollow = attrs.evolve(site, module=self.model.get_submodule(site.path))
            layer = emptied(lifted(found.relaxation, hollow, self._shards))
            self.model = replace(self.model, found.paths[site.path], layer)
        keep_passes_told(self.model)

    def training(
        self,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer],
        x: Inputs,
        y: torch.Tensor,
        batch: int,
        precision: Precision = "float32",
        objective: AbstractObjective | None = None,
        clip_norm: float | None = None,
        penalties: Callable[[nn.Module], Penalties | None] = lambda _: None,
    ) -> Peak:
        """Peak of a training step, the network and the optimizer's state included, the data set not.

        Args:
            optimizer: makes one for a network.
            x: inputs, any number of them.
            y: their targets.
            batch: samples per step.
            precision: as in training.
            objective: what is learnt; classification by cross-entropy if None.
            clip_norm: as in training; where gradients are clipped, all of them are held at once.
            penalties: makes them for a network.

        Raises:
            RuntimeError: how the network goes on depends on numbers.
        """
        with self._counted(x, y, batch) as (ledger, inputs, labels):
            training = Training(
                model=self.model,
                optimizer=optimizer(self.model),
                x=inputs,
                y=labels,
                batch_size=batch,
                seed=0,
                learning_rate=lambda _: 1e-3,
                precision=precision,
                objective=objective or CrossEntropy(),
                clip_norm=clip_norm,
                penalties=penalties(self.model),
            )
            sent = self._sent
            training.advance(1)
            self.sent = self._sent - sent
            if training.optimizer.state:  # what the first step left stays from now on
                training.advance(2)
            if training.penalties:
                last = training.penalties.iterations - 1
                for training.iteration in (last // 2, last):  # a term may come late, as a ramp from 0 does
                    training.advance(training.iteration + 1)
            training.optimizer.zero_grad()
        return ledger.peak()

    def evaluation(
        self, x: Inputs, y: torch.Tensor, batch: int, precision: Precision = "float32", objective: AbstractObjective | None = None
    ) -> Peak:
        """Peak of evaluating one batch, the network included, the data set not; arguments as above.

        Raises:
            RuntimeError: how the network goes on depends on numbers.
        """
        with self._counted(x, y, batch) as (ledger, inputs, labels):
            evaluate(self.model, inputs, labels, batch=batch, precision=precision, objective=objective)
        return ledger.peak()

    @property
    def _sent(self) -> int:
        return 0 if self._shards is None else self._shards.sent

    @contextlib.contextmanager
    def _counted(self, x: Inputs, y: torch.Tensor, batch: int) -> Iterator[tuple[Ledger, torch.Tensor, torch.Tensor]]:
        inputs, labels = (Hollow(torch.empty(batch, *each.shape[1:], dtype=each.dtype, device="meta"), each.device) for each in (x, y))
        ledger = Ledger(x.device)
        for tensor in [*self.model.parameters(), *self.model.buffers()]:
            ledger.note(tensor)
        ledger.ignore(inputs, labels)
        with ledger, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come when it matters
            yield ledger, inputs, labels
