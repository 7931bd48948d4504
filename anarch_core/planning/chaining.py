"""Whether the small layers of a network are trained as chains: their sizes say so, and some steps of both ways before the run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import nn

from anarch_core.experiment.context import RunContext
from anarch_core.experiment.segments import Segment
from anarch_core.machine import own_randomness, processor_threads
from anarch_core.network import copied
from anarch_core.planning.footprint import Footprint
from anarch_core.training.loop import Training
from anarch_core.training.precision import matmul_precision

LARGEST = 2**24
"""Parameters of a network that is tried; in a larger one, small layers do not matter."""

TURNS, SECONDS = 6, 0.25
"""How often either way is tried in turn, and how long at most."""

SLOWER = 1.25
"""How many times as long as layer by layer a step has to take for a network not to be trained as its sizes say.

Two runs of the same command are to decide alike, so it is far from what those sizes take where they were measured.
"""


def chained(context: RunContext, networks: Sequence[Footprint], segments: Sequence[Segment], known: Mapping[str, bool]) -> dict[str, bool]:
    """For each network of a run whether its small layers are trained as chains.

    Args:
        context: of the run, with the number of threads that a process has.
        networks: of the run.
        segments: of the run.
        known: what was decided before, which is not asked again.
    """
    found = dict(known)
    by_id = {segment.id: segment for segment in segments}
    for footprint in networks:
        names = {by_id[each].network for each in footprint.architecture.segments if each in by_id} - found.keys()
        if (
            names
            and context.device.type == "cpu"
            and footprint.parameters <= LARGEST
            and not (footprint.report and footprint.report.refused)
        ):
            with own_randomness(context.device):
                model = context.follow(context.build(context.config.seeds[0]), footprint.architecture.steps, check=False)
                found.update(dict.fromkeys(names, _pays(context, model)))
    return found


def _pays(context: RunContext, model: nn.Module) -> bool:
    """Whether steps with chains are not much slower than without; True where there are none."""
    ways = [tried(context, model, chained=False), tried(context, copied(model), chained=True)]
    best = [float("inf")] * len(ways)
    begun = time.perf_counter()
    with matmul_precision(context.config.precision), processor_threads(context.config.threads):
        for turn in range(TURNS):
            for number, training in enumerate(ways):
                started = time.perf_counter()
                training.advance(training.iteration + 1)
                if turn:  # the first takes the memory
                    best[number] = min(best[number], time.perf_counter() - started)
            if not ways[1].chains:
                return True
            if turn and time.perf_counter() - begun > SECONDS:
                break
    ordinary, as_chains = best
    return as_chains <= SLOWER * ordinary


def tried(context: RunContext, model: nn.Module, *, chained: bool) -> Training:
    """Training whose learning rate is too small to spoil anything; with penalties in the middle of a stretch."""
    config, data = context.config, context.data
    penalties = context.penalising(model, config.branch_epochs * context.iterations_per_epoch)
    return Training(
        model=model,
        optimizer=context.optimizer(model, 1e-12),
        x=data.inputs("train"),
        y=data.y_train,
        batch_size=config.batch_size,
        seed=0,
        learning_rate=lambda _: 1e-12,
        precision=config.precision,
        clip_norm=config.clip_norm,
        penalties=penalties,
        average=context.running_average(model, config.epochs * context.iterations_per_epoch),
        augment=context.augmenting(0),
        objective=data.objective,
        chained=chained,
        iteration=penalties.iterations // 2 if penalties else 0,
    )
