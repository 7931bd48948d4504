"""The machine: free memory, cores, versions."""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import functools
import os
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anarch_core.errors import OutOfMemoryError
from anarch_core.limits import allowed_bytes, allowed_cores, shared_allowance

if TYPE_CHECKING:
    import torch

PACKAGES = ("anarch", "torch", "safetensors", "numpy")
"""Distributions whose versions decide what is trained, how it is rounded, and how it is written."""


def available_bytes(device: torch.device | str) -> int:
    """Bytes that can be allocated on a device now; more than there can be on the meta device, where nothing is.

    In the host's memory, what the system has to give, or less where a container or a limit of the process allows less.
    """
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    if device.type == "meta":
        return sys.maxsize
    return _of_host(allowed_bytes())


def available_to_several() -> int:
    """Bytes that processes can allocate together in the host's memory, each of which has the limits that ``ulimit`` sets for itself."""
    return _of_host(shared_allowance())


def _of_host(allowed: int | None) -> int:
    """Bytes that the system has to give, as far as they are allowed; None for all."""
    import psutil

    available = int(psutil.virtual_memory().available)
    return available if allowed is None else min(available, allowed)


def resident_bytes() -> int:
    """Bytes of the host's memory that this process holds; what the C library only keeps for later is given back first."""
    import psutil

    give_back()
    return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """Return to the system what the C library keeps of freed memory, where it is glibc; some milliseconds."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def require_memory(needed: int, device: torch.device | str, what: str) -> None:
    """Refuse what does not fit.

    Args:
        needed: bytes.
        device: where they would go.
        what: the subject of the message, e.g. ``"efcn of 3 layers"``.

    Raises:
        OutOfMemoryError: fewer bytes are available.
    """
    available = available_bytes(device)
    if needed > available:
        msg = (
            f"{what} needs {human_bytes(needed)} and {human_bytes(available)} are free on {device}; "
            "relax fewer layers (--layers), a smaller input, or a smaller family such as lcn"
        )
        raise OutOfMemoryError(msg, needed=needed, available=available)


def human_bytes(count: float) -> str:
    """``1536`` -> ``"1.5 kB"``; powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def human_duration(seconds: float) -> str:
    """``5400`` -> ``"90 min"``; whole numbers of the largest unit of which there are two."""
    for unit, scale in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * scale:
            return f"{seconds / scale:.0f} {unit}"
    return f"{seconds:.0f} s"


@functools.cache
def cpu_name() -> str:
    """The model of the processor, as its maker calls it, where the system says; else its architecture."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def gpu_name(device: torch.device | str) -> str | None:
    """The model of a GPU, or of the part of one; None for other devices."""
    import torch

    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else None


def machine_record(device: str, places: Iterable[str]) -> dict[str, Any]:
    """Versions, machine and time, JSON-ready.

    Args:
        device: what the user chose, resolved.
        places: the devices that this is, one by one.
    """
    kinds = Counter(gpu_name(place) or cpu_name() for place in places)
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in PACKAGES},
        "device": device,
        "device_name": ", ".join(kind if count == 1 else f"{count} × {kind}" for kind, count in kinds.items()),
        "command": sys.argv,
    }


@contextlib.contextmanager
def own_randomness(device: torch.device) -> Iterator[None]:
    """Leave PyTorch's random state, on the processor and on the device, as it was found."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


@contextlib.contextmanager
def processor_threads(count: int | None) -> Iterator[None]:
    """Inside, PyTorch shares a sum among so many processor threads, which decides its rounding; as many as were found if None."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cores() -> int:
    """Processor cores this process may use; no more than a container allows it the time of."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(found, allowed_cores() or found)
