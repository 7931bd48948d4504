"""Where a run takes place: versions and machine, for ``run.json``."""

from __future__ import annotations

import datetime
import platform
import sys
from importlib.metadata import version
from typing import Any


def describe(device: str) -> dict[str, Any]:
    """Versions, machine and time, JSON-ready."""
    import torch

    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in ("anarch", "torch", "safetensors", "numpy")},
        "device": device,
        "device_name": torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine(),
        "command": sys.argv,
    }
