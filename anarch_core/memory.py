"""How much memory there is, asked before anything large is allocated."""

from __future__ import annotations

import psutil
import torch
from torch import nn

from anarch_core.errors import OutOfMemoryError


def available_bytes(device: torch.device | str) -> int:
    """Bytes that can be allocated on a device now."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + cached
    return int(psutil.virtual_memory().available)


def require(needed: int, device: torch.device | str, what: str) -> None:
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


def network_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers of a network."""
    return sum(tensor.nbytes for tensor in [*model.parameters(), *model.buffers()])


def human_bytes(count: float) -> str:
    """``1536`` -> ``"1.5 kB"``; powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
