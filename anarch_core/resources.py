"""Sharing the machine: which device, how many processes, how many threads each, and whether memory suffices."""

from __future__ import annotations

import os

from anarch_core.errors import ConfigError, OutOfMemoryError

SMALL_MODEL = 32 * 2**20
"""Bytes of parameters below which one thread does as well as many, and several segments are better trained side by side."""

PROCESS = 500 * 2**20
"""Bytes that an interpreter with PyTorch takes."""


def resolve_device(name: str) -> str:
    """``"cpu"``, ``"cuda"`` or ``"cuda:N"`` for what the user asked for; ``"auto"`` takes a GPU where there is one.

    Raises:
        ConfigError: the device is not there.
    """
    if name == "cpu":
        return name
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not torch.cuda.is_available():
        why = "this PyTorch is built without CUDA" if torch.version.cuda is None else "no GPU is visible"
        msg = f"device {name!r} is not there: {why}; use --device cpu or --device auto"
        raise ConfigError(msg)
    index = torch.device(name).index
    if index is not None and index >= torch.cuda.device_count():
        msg = f"device {name!r} is not there: this machine has {torch.cuda.device_count()} GPU(s), counted from cuda:0"
        raise ConfigError(msg)
    return name


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(
    *,
    device: str,
    jobs: int | None,
    threads: int | None,
    parallel: int,
    model_bytes: int,
    peak_bytes: int,
    data_bytes: int,
    work: str,
) -> tuple[int, int]:
    """How many segments to train at once, and with how many threads each, where the user left it open.

    Args:
        device: resolved.
        jobs: as the user says, or None.
        threads: likewise.
        parallel: segments that could be trained at the same time.
        model_bytes: parameters of the largest network.
        peak_bytes: the most that a process takes, the data set left out.
        data_bytes: the data set.
        work: what it takes that for, e.g. ``"training efcn"``.

    Raises:
        OutOfMemoryError: not even that many (one, if the user left it open) fit.
    """
    from anarch_core.memory import available_bytes, human_bytes

    small = model_bytes < SMALL_MODEL
    free, each = available_bytes(device), peak_bytes + (PROCESS + data_bytes if device == "cpu" else 0)
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
