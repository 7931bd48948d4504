"""Among how many processes the networks of a run could be shared out: what each would hold and send, and whether that fits."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from anarch_core.display import Table
from anarch_core.errors import AnarchError, ConfigError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.placement import trained_elsewhere
from anarch_core.experiment.segments import Segment
from anarch_core.machine import human_bytes
from anarch_core.planning.footprint import Footprint, footprints
from anarch_core.planning.preflight import need_of
from anarch_core.planning.sharing import shared
from anarch_core.planning.together import obstacle, require_together

LOOKED_AT = (1, 2, 4, 8)
"""Numbers of processes that are looked at, beside the one that is asked for."""


@attrs.frozen(kw_only=True)
class SharedOut:
    """Networks of a run as so many processes would hold them, each segment alone on the machine.

    Attributes:
        shards: processes that train a segment together.
        held: bytes of parameters and buffers that a process has of the network of which it has the most.
        peak: bytes that it takes for networks at the most.
        sent: bytes that it sends in a step, at the most.
        fits: whether there is room for one segment; None where it is trained elsewhere.
    """

    shards: int
    held: int
    peak: int
    sent: int
    fits: bool | None


def by_shards(context: RunContext, found: Sequence[Footprint], segments: Sequence[Segment]) -> tuple[SharedOut, ...]:
    """What processes would hold, for more and more of them, as far as there are channels enough; nothing where none is relaxed.

    Args:
        context: of the run.
        found: its networks, as the run would have them.
        segments: of the run.
    """
    asked = context.config.shards
    rows = []
    for shards in sorted({*LOOKED_AT, asked}):
        trial = attrs.evolve(context, config=attrs.evolve(context.config, shards=shards, jobs=1))
        try:
            require_together(trial)
        except ConfigError:
            break
        if any(obstacle(trial, network.architecture) is not None for network in found):
            break
        rows.append(_shared_out(trial, found if shards == asked else footprints(trial, segments)))
    return tuple(rows)


def _shared_out(context: RunContext, networks: Sequence[Footprint]) -> SharedOut:
    need = need_of(networks)
    return SharedOut(
        shards=context.config.shards,
        held=max(network.held for network in networks),
        peak=need.peak_bytes,
        sent=max(network.sent for network in networks),
        fits=None if trained_elsewhere(context.config, context.registry) else _fits(context, networks),
    )


def _fits(context: RunContext, networks: Sequence[Footprint]) -> bool:
    try:
        shared(context, need_of(networks), 1, grows=False)
    except AnarchError:  # memory, or cards
        return False
    return True


def fewest(rows: Sequence[SharedOut]) -> int | None:
    """How few processes there is room for; None where there is none for any number of them that was looked at, or nothing is known."""
    return next((row.shards for row in rows if row.fits), None)


def table(rows: Sequence[SharedOut], *, cards: bool) -> Table:
    """A line for each number of processes, and how few of them fit.

    Args:
        rows: of a run.
        cards: whether each process has a card of its own.
    """
    least, told = fewest(rows), any(row.fits is not None for row in rows)
    memory = "Each has a card of its own" if cards else "On a processor they share its memory, on cards each has its own"
    verdict = "" if not told else "; none of these fits" if least is None else f"; the fewest that fit: {least}"
    return Table(
        headings=("processes", "weights of each", "memory of each", "sent a step by each", *(["fits"] if told else [])),
        rows=[
            (
                str(row.shards),
                human_bytes(row.held),
                human_bytes(row.peak),
                human_bytes(row.sent),
                *(["yes" if row.fits else "no"] if told else []),
            )
            for row in rows
        ],
        caption=f"{memory}{verdict}.",
    )
