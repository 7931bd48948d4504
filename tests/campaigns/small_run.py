"""A run that takes a second, and what it left where it was stopped: for campaigns to damage copies of."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from anarch_core.config.resolution import resolve
from anarch_core.experiment.segments import Segment
from anarch_core.running.progress import Silent
from anarch_core.running.runner import InterruptedRunError, resume, run


class Hearing(Silent):
    """Keeps what a run says, and stops it.

    Args:
        stop: optimizer steps after which the run is stopped; None to let it go on.
    """

    def __init__(self, stop: int | None = None) -> None:
        self.lines: list[str] = []
        self._left = stop

    def say(self, text: str) -> None:
        self.lines.append(text)

    def trained(self, segment: Segment, iteration: int, row: Any) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                signal.raise_signal(signal.SIGINT)


@functools.cache
def signals() -> Path:
    """Data, in a folder that is there as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="campaign-run-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7) + 0.5 * torch.randn(60, 16, generator=generator)
    path = folder / "signals.safetensors"
    save_file({"x": x[:40, None].clone(), "y": y[:40].clone(), "x_test": x[40:, None].clone(), "y_test": y[40:].clone()}, path)
    return path


@functools.cache
def kept(stop: int | None = None) -> Path:
    """A run that is finished, or was stopped when so many of its epochs were trained; nobody writes to it."""
    config = resolve(
        {
            "data": f"tensors:{signals()}",
            "model": "cnn1d",
            "batch_size": 10,
            "relax": "efcn",
            "epochs": 2,
            "branch_epochs": 2,
            "switch": "at:1",
            "control": (),
            "probe": "weights",
            "optimizer_state": "carry",
            "jobs": 1,
            "threads": 1,
            "device": "cpu",
        }
    )
    with contextlib.suppress(InterruptedRunError):
        run(config, out=signals().with_name(f"stopped-{stop}"), progress=Hearing(stop))
    return signals().with_name(f"stopped-{stop}")


def copied(kept: Path, folder: Path) -> Path:
    """A copy of it, times included, to be damaged."""
    return shutil.copytree(kept, folder / "run")


def resumed(run: Path) -> list[str]:
    """Resume a run to its end, in this process; what was said."""
    hearing = Hearing()
    resume(run, progress=hearing)
    return [line for line in hearing.lines if not line.startswith("loading")]


def left(run: Path) -> dict[str, Any]:
    """What a run has left that must come out the same each time: all of its segments' files, times and durations aside."""
    files: dict[str, Any] = {}
    for path in run.glob("segments/**/*"):
        if path.is_dir() or ".aside." in str(path) or path.name == ".lock":
            continue
        if path.name == "result.json":
            table = json.loads(path.read_text())
            files[str(path.relative_to(run))] = {key: value for key, value in table.items() if key not in ("seconds", "left", "digest")}
        else:
            files[str(path.relative_to(run))] = path.read_bytes()
    return files
