"""Runs small enough for tests: forty signals of sixteen points, a network of three channels, a few epochs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from anarch_core.config import RunConfig
from anarch_core.resolution import resolve

BATCH, STEPS_PER_EPOCH = 10, 4


def write_signals(path: Path) -> Path:
    """Three classes of noisy waves: 40 to train on (in four batches), 20 to test on."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    wave = torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7)
    x = (wave + 0.5 * torch.randn(60, 16, generator=generator))[:, None, :]
    save_file({"x": x[:40].clone(), "y": y[:40].clone(), "x_test": x[40:].clone(), "y_test": y[40:].clone()}, path)
    return path


def small(signals: Path, **settings: Any) -> RunConfig:
    """A configuration on the signals; one job unless the test says otherwise."""
    defaults = {
        "data": f"tensors:{signals}",
        "model": "cnn1d",
        "batch_size": BATCH,
        "relax": "efcn",
        "epochs": 3,
        "branch_epochs": 2,
        "switch": "at:0,2",
        "jobs": 1,
        "threads": 1,
        "device": "cpu",
    }
    options = {"cnn1d": {"channels": 3}, **settings.pop("options", {})}
    if settings.get("path"):
        del defaults["switch"]
    elif settings.get("relax") == () and settings.get("control") == "none":
        del defaults["switch"], defaults["branch_epochs"]
    return resolve({**defaults, **settings, "options": options})
