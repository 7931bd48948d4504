"""Sharing the machine: how many processes on which devices, how many threads each, and whether memory suffices.

A segment is trained by one process, or by as many together as the run says (``shards``).
"""

from __future__ import annotations

import sys

import attrs

from anarch_core.cards import Place, cards, in_turn, team
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import OutOfMemoryError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.placement import trained_elsewhere
from anarch_core.limits import own_allowance
from anarch_core.machine import available_bytes, available_to_several, cores, human_bytes, resident_bytes
from anarch_core.planning.need import Need
from anarch_core.planning.on_cards import Cards, Load, share_cards
from anarch_core.sharding.launch import Launch


@attrs.frozen(kw_only=True)
class Share:
    """How a run shares the machine.

    Attributes:
        jobs: segments at once, on each card where it is trained on cards; None where workers elsewhere see to that.
        threads: of each process.
        places: where segments are trained, in the order in which they are filled; one place of one process is for this process, and there
            are none where it is trained elsewhere.
        notes: lines for the user.
    """

    jobs: int | None
    threads: int
    places: tuple[Place, ...] = ()
    notes: tuple[str, ...] = ()


def shared(context: RunContext, need: Need, segments: int, *, grows: bool) -> Share:
    """Decide what the user left open.

    Args:
        context: of the run.
        need: what training takes.
        segments: planned, of which every one could be trained at the same time.
        grows: whether a schedule finds more while the trunk is trained.

    Raises:
        OutOfMemoryError: the memory does not suffice.
        ConfigError: a card is not there, or there are fewer than a segment needs.
    """
    config, data = context.config, context.data
    notes = _replicated(config)
    if trained_elsewhere(config, context.registry):
        return Share(jobs=config.jobs, threads=config.threads or 1, notes=notes)
    if (launch := Launch.of_this_process()) is not None:
        device = str(context.device)
        sharing = launch.local_size if device == "cpu" else 1
        need.require_room(available_bytes(device) // sharing, device)
        threads = config.threads or max(1, cores() // launch.local_size)
        return Share(jobs=1, threads=threads, places=(Place(device, device),), notes=notes)
    devices, elsewhere = cards(config.device), data.bytes_to_load(context.device)
    if devices[0].visible is None:
        # What this process holds by now every other would: it has the data, and has built the network and taken a step.
        process = resident_bytes()
        jobs, threads = share_processor(
            jobs=config.jobs, threads=config.threads, parallel=segments, need=need, process_bytes=process, shards=config.shards
        )
        kept = [attrs.evolve(place, data_on="host" if elsewhere else "device") for place in devices]
        return Share(jobs=jobs, threads=threads, places=in_turn([team(kept * config.shards)], jobs), notes=notes)
    targets = sum(tensor.nbytes for name, tensor in data.tensors().items() if name.startswith("y"))
    inputs = data.nbytes - targets + elsewhere
    free = {place.name: available_bytes(place.name) for place in devices}
    free[devices[0].name] += data.nbytes
    found = Cards(
        places=devices,
        named="," in config.device,
        free=free,
        kept=data.nbytes,
        host_free=available_bytes("cpu"),
        host_each=resident_bytes() + data.nbytes,
    )
    load = Load(need=need, inputs=inputs, targets=targets, data_on=config.data_on)
    places, left_out = share_cards(found, load, jobs=config.jobs, parallel=sys.maxsize if grows else segments, shards=config.shards)
    threads = config.threads or max(1, cores() // (len(places) * config.shards))
    return Share(jobs=config.jobs or 1, threads=threads, places=places, notes=(*notes, *left_out))


def _replicated(config: RunConfig) -> tuple[str, ...]:
    """Says so where several processes train a segment together, and none of them has a part of anything."""
    if config.shards == 1 or config.relax or config.path:
        return ()
    return (
        f"shards {config.shards} shares out relaxed layers, and this run has none: each process computes all of it; add --relax or --path",
    )


def share_processor(
    *,
    jobs: int | None,
    threads: int | None,
    parallel: int,
    need: Need,
    process_bytes: int,
    shards: int = 1,
) -> tuple[int, int]:
    """How many segments to train on the processor at once, and with how many threads each, where the user left it open.

    Args:
        jobs: as the user says, or None.
        threads: likewise.
        parallel: segments that could be trained at the same time.
        need: what a process takes for networks.
        process_bytes: what it takes besides: interpreter, PyTorch and data.
        shards: processes that train a segment together.

    Raises:
        OutOfMemoryError: not even that many (one, if the user left it open) fit.
    """
    small = need.small
    free, alone, each = available_bytes("cpu"), own_allowance(), shards * (need.peak_bytes + process_bytes)
    together = free if alone is None else available_to_several()
    wanted = jobs or (min(max(1, cores() // shards), parallel) if small else 1)
    fitting = int(0.9 * together) // max(each, 1)
    if jobs is None:
        wanted = max(1, min(wanted, fitting))
    if wanted == shards == 1:  # in this process, which has the interpreter and the data already
        need.require_room(free, "cpu")
    elif wanted * each > together:
        at_once = f", {wanted} segments at once" if wanted > 1 else ""
        processes = f", {shards} processes for each segment" if shards > 1 else ""
        fewer = "use fewer --jobs" if wanted > 1 else f"{need.advice}; on a processor fewer --shards take less"
        needs = f"{need.work}{at_once}{processes}, needs {human_bytes(wanted * each)}"
        msg = f"{needs}, but cpu has {human_bytes(together)} free; {fewer}"
        raise OutOfMemoryError(msg, needed=wanted * each, available=together)
    elif alone is not None:
        need.require_room(alone, "cpu")
    if threads is None:
        threads = 1 if small else max(1, cores() // (wanted * shards))
    return wanted, threads
