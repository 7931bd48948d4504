"""Sharing the machine: which device, how many processes, how many threads each, and whether memory suffices."""

from __future__ import annotations

import attrs

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import OutOfMemoryError
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.placement import trained_elsewhere
from anarch_core.machine import available_bytes, cores, human_bytes, resident_bytes
from anarch_core.planning.need import Need


def shared(context: RunContext, need: Need, segments: int) -> RunConfig:
    """The configuration with jobs and threads where the user left them open; those elsewhere know themselves how many jobs they take.

    Args:
        context: of the run.
        need: what training takes.
        segments: of the run.

    Raises:
        OutOfMemoryError: the memory does not suffice.
    """
    config = context.config
    if trained_elsewhere(config, context.registry):
        return attrs.evolve(config, threads=config.threads or 1)
    jobs, threads = share_machine(
        device=config.device,
        jobs=config.jobs,
        threads=config.threads,
        parallel=segments,
        need=need,
        # What this process holds by now every other would: it has the data, and has built the network and taken a step.
        process_bytes=resident_bytes() if context.device.type == "cpu" else 0,
    )
    return attrs.evolve(config, jobs=jobs, threads=threads)


def share_machine(
    *,
    device: str,
    jobs: int | None,
    threads: int | None,
    parallel: int,
    need: Need,
    process_bytes: int,
) -> tuple[int, int]:
    """How many segments to train at once, and with how many threads each, where the user left it open.

    Args:
        device: resolved.
        jobs: as the user says, or None.
        threads: likewise.
        parallel: segments that could be trained at the same time.
        need: what a process takes for networks.
        process_bytes: what it takes besides in the memory of the device: interpreter, PyTorch and data in the host's.

    Raises:
        OutOfMemoryError: not even that many (one, if the user left it open) fit.
    """
    small, work = need.small, need.work
    free, each = available_bytes(device), need.peak_bytes + process_bytes
    wanted = jobs or (min(cores(), parallel) if device == "cpu" and small else 1)
    fitting = int(0.9 * free) // max(each, 1)
    if jobs is None:
        wanted = max(1, min(wanted, fitting))
    # A single job runs in this process, which has the interpreter and the data already.
    needed = need.peak_bytes if wanted == 1 else wanted * each
    if needed > free:
        many = f"{work}, {wanted} segments at once, needs" if wanted > 1 else f"{work} needs"
        smaller = "use a smaller network, relax fewer layers (--layers), or choose another --relax"
        if work.startswith("training"):
            smaller = f"use a smaller --batch-size; {smaller}"
        hint = "use fewer --jobs" if wanted > 1 else smaller
        msg = f"{many} {human_bytes(needed)}, but {device} has {human_bytes(free)} free; {hint}"
        raise OutOfMemoryError(msg, needed=needed, available=free)
    if threads is None:
        threads = 1 if device == "cpu" and small else max(1, cores() // wanted)
    return wanted, threads
