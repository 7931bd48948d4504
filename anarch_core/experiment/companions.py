"""Segments that others are compared with once both are trained: another order of batches, no switch, another seed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from anarch_core.config.run_config import RunConfig
from anarch_core.experiment.segments import Segment, Transition
from anarch_core.probe.base import COMPANIONS

if TYPE_CHECKING:
    from anarch_core.probe.base import AbstractProbe


def companions(segment: Segment, wanted: Collection[str], planned: Mapping[str, Segment], first_seed: int) -> dict[str, Segment]:
    """The segments that one is compared with, by name, of those that are wanted and are part of the run.

    Args:
        segment: any of the run.
        wanted: names, of :data:`~anarch_core.probe.base.COMPANIONS`.
        planned: all segments of the run, by identity.
        first_seed: whose segments are the siblings of all others.
    """
    found = {name: other for name, other in _all(segment, first_seed) if name in wanted}
    return {name: other for name, other in found.items() if other.id != segment.id and other.id in planned}


def _all(segment: Segment, first_seed: int) -> Iterator[tuple[str, Segment]]:
    yield "twin", _with_noise(segment, 0)
    if segment.kind == "branch" and segment.parent is not None and segment.parent.kind == "trunk":
        how = Transition(optimizer_state=segment.transition.optimizer_state)
        settings = attrs.evolve(segment.settings, penalties=())
        yield "control", attrs.evolve(segment, kind="continued", settings=settings, transition=how, relaxation=None)
    yield "sibling", _with_seed(segment, first_seed)


def _with_noise(segment: Segment, noise: int) -> Segment:
    parent = segment.parent
    if parent is not None and parent.kind != "trunk":
        parent = _with_noise(parent, noise)
    return attrs.evolve(segment, noise=noise, parent=parent)


def _with_seed(segment: Segment, seed: int) -> Segment:
    return attrs.evolve(segment, seed=seed, parent=None if segment.parent is None else _with_seed(segment.parent, seed))


def wanted_by(probes: Mapping[str, AbstractProbe]) -> frozenset[str]:
    """The companions that some of these probes need."""
    return frozenset(name for name in COMPANIONS if any(name in probe.needs for probe in probes.values()))


_MISSING = {
    "twin": "segments of another order of batches, and this run has one; add --noise-seeds 0,1",
    "control": "the control 'continued', which this run does not have; add --control continued,scratch",
    "sibling": "segments of another seed, and this run has one seed; add --seeds 0,1",
}


def lonely(config: RunConfig, probes: Mapping[str, AbstractProbe]) -> list[str]:
    """Of probes that have nobody to compare with in this run, why, as sentences."""
    there = {
        "twin": len(config.noise_seeds) > 1,
        "control": "continued" in config.control,
        "sibling": len(config.seeds) > 1,
    }
    return [
        f"probe {name} measures nothing: it needs {_MISSING[need]}"
        for name, probe in probes.items()
        for need in COMPANIONS
        if need in probe.needs and not there[need]
    ]
