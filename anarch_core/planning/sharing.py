"""Sharing the machine: which device, how many processes, how many threads each, and whether memory suffices."""

from __future__ import annotations

from anarch_core.errors import OutOfMemoryError
from anarch_core.machine import available_bytes, cores, human_bytes

SMALL_MODEL = 32 * 2**20
"""Bytes of parameters below which one thread does as well as many, and several segments are better trained side by side."""


def share_machine(
    *,
    device: str,
    jobs: int | None,
    threads: int | None,
    parallel: int,
    model_bytes: int,
    peak_bytes: int,
    process_bytes: int,
    work: str,
) -> tuple[int, int]:
    """How many segments to train at once, and with how many threads each, where the user left it open.

    Args:
        device: resolved.
        jobs: as the user says, or None.
        threads: likewise.
        parallel: segments that could be trained at the same time.
        model_bytes: parameters of the largest network.
        peak_bytes: the most that a process takes for networks.
        process_bytes: what it takes besides in the memory of the device: interpreter, PyTorch and data in the host's.
        work: what it takes that for, e.g. ``"training efcn"``.

    Raises:
        OutOfMemoryError: not even that many (one, if the user left it open) fit.
    """
    small = model_bytes < SMALL_MODEL
    free, each = available_bytes(device), peak_bytes + process_bytes
    wanted = jobs or (min(cores(), parallel) if device == "cpu" and small else 1)
    fitting = int(0.9 * free) // max(each, 1)
    if jobs is None:
        wanted = max(1, min(wanted, fitting))
    # A single job runs in this process, which has the interpreter and the data already.
    needed = peak_bytes if wanted == 1 else wanted * each
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
