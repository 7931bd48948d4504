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

ROUNDS = 4
"""How often it has to come out slower."""

SLOWER = 1.25
"""How many times as long as layer by layer a step has to take for a network not to be trained as its sizes say.

Two runs of the same command are to decide alike, whatever else the machine does. So this is far from what such sizes take where they were
measured, what counts is the time of the processor, and to speak against the sizes it has to be so again and again.
"""


def chained(context: RunContext, networks: Sequence[Footprint], segments: Sequence[Segment], known: Mapping[str, bool]) -> dict[str, bool]:
    """For each network of a run whether its small layers are trained as chains.

    Not of networks that processes hold together: no process has the whole of one to try.

    Args:
        context: of the run, with the number of threads that a process has.
        networks: of the run.
        segments: of the run.
        known: what was decided before, which is not asked again.
    """
    found = dict(known)
    if context.config.shards > 1:
        held_together = {id for footprint in networks if footprint.architecture.parts for id in footprint.architecture.segments}
        found.update({segment.network: False for segment in segments if segment.id in held_together})
    if context.device.type != "cpu":
        return found
    for footprint in networks:
        names = {segment.network for segment in segments if segment.id in footprint.architecture.segments} - found.keys()
        if names and footprint.parameters <= LARGEST and not (footprint.report and footprint.report.refused):
            with own_randomness(context.device):
                model = context.follow(context.build(context.config.seeds[0]), footprint.architecture.steps, check=False)
                found.update(dict.fromkeys(names, _pays(context, model)))
    return found


def _pays(context: RunContext, model: nn.Module) -> bool:
    """Whether steps with chains are not much slower than without; True where there are none, False where none can be taken."""
    with matmul_precision(context.config.precision), processor_threads(context.config.threads):
        try:
            ordinary, as_chains = (tried(context, each, chained=each is not model) for each in (model, copied(model)))
            ordinary.advance(ordinary.iteration + 1)  # the first step takes the memory
        except Exception:  # what cannot be trained is told where it is trained, of its segment
            return True
        try:
            as_chains.advance(as_chains.iteration + 1)
        except Exception:  # a network may do with its layers what no chain can, as differentiate them twice
            return False
        return not as_chains.chains or not all(_slower(ordinary, as_chains) for _ in range(ROUNDS))


def _slower(ordinary: Training, chained: Training) -> bool:
    """Whether the best step of the second was much slower than that of the first, by the time of the processor."""
    best = {id(ordinary): float("inf"), id(chained): float("inf")}
    begun = time.monotonic()
    for _ in range(TURNS):
        for training in (ordinary, chained):
            started = time.process_time()
            training.advance(training.iteration + 1)
            best[id(training)] = min(best[id(training)], time.process_time() - started)
        if time.monotonic() - begun > SECONDS:
            break
    return best[id(chained)] > SLOWER * best[id(ordinary)]


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
        capture="off" if context.config.capture == "off" else "auto",
        iteration=penalties.iterations // 2 if penalties else 0,
    )
