"""The memory of a measurement: what a probe says of a rehearsal, and how it is rehearsed."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable

import attrs
from torch import nn

from anarch_core.errors import Stopped
from anarch_core.network import network_bytes
from anarch_core.planning.hollow import hollowed
from anarch_core.planning.ledger import Ledger, Peak
from anarch_core.plugin.blame import expected, origin
from anarch_core.probe.base import AbstractProbe, ProbeContext, ProbeRehearsal
from anarch_core.surroundings import Surroundings

STEPS = 100_000
"""Calls of operators after which a rehearsal is given up, a few seconds; a loop that ends by the numbers it finds may never end."""

GUESSED = 6
"""Vectors as large as the network that a measurement is taken to hold where it does not say and cannot be rehearsed."""


def rehearsal_of(context: ProbeContext, noted: list[Peak] | None = None) -> ProbeRehearsal:
    """The rehearsal of a measurement.

    Args:
        context: what is to be measured, with data; the networks may hold numbers or not, and are not changed.
        noted: what every call of :attr:`ProbeRehearsal.peak` finds is added to it, the networks included.
    """
    others = {name: hollowed(network) for name, network in context.others.items()}
    hollow = attrs.evolve(context.beside(others), model=hollowed(context.model))

    def peak(do: Callable[[], object]) -> int:
        found, networks = taken(hollow, do)
        if noted is not None:
            noted.append(found)
        return found.used - networks

    return ProbeRehearsal(context=hollow, peak=peak)


def peak_of_probe(probe: AbstractProbe, context: ProbeContext, *, otherwise: int, beside: int = 0) -> Peak:
    """Memory of a measurement, the networks included, the data not.

    Args:
        probe: any.
        context: as for :func:`rehearsal_of`.
        otherwise: activations of the network in a training step, in bytes; they come on top where the probe cannot say.
        beside: bytes that are held besides.

    Raises:
        PluginError: what the probe says is no number.
    """
    noted: list[Peak] = []
    networks = sum(map(network_bytes, _networks(context)))
    surroundings = Surroundings.now()
    try:
        answer: object = probe.memory(rehearsal_of(context, noted))
    except (KeyboardInterrupt, Stopped):
        raise
    except BaseException:  # anybody's probe, and some need numbers
        answer, noted = GUESSED * network_bytes(context.model) + otherwise, []
    finally:
        surroundings.restore()
    said = max(0, int(expected(origin(probe), "memory()", answer, int, float)))
    found = max(noted, key=lambda peak: peak.used, default=Peak(used=networks, small=0, large=networks))
    used = networks + said + beside
    return Peak(used=used, small=found.small, large=max(0, found.large + used - found.used))


def taken(context: ProbeContext, do: Callable[[], object], *, real: bool = False) -> tuple[Peak, int]:
    """What is held at the fullest moment of something that is done: with the networks, without the data; and by the networks, in bytes.

    Args:
        context: what it is done with.
        do: does it.
        real: the networks hold numbers.

    Raises:
        RuntimeError: without numbers, what is done depends on them or takes too many steps.
    """
    ledger = Ledger(context.required_data.inputs("train").device, sys.maxsize if real else STEPS, makes=real)
    for network in _networks(context):
        for tensor in [*network.parameters(), *network.buffers()]:
            ledger.note(tensor)
    networks = ledger.peak().used
    with ledger, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when it matters
        do()
    return ledger.peak(), networks


def _networks(context: ProbeContext) -> list[nn.Module]:
    return [context.model, *context.others.values()]
