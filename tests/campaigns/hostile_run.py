"""A small finished run, and copies of it in which somebody has changed what the files say."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from anarch_core.checkpoint.file import read_data, write_file
from anarch_core.checkpoint.header import TensorEntry, layout
from anarch_core.config.resolution import resolve
from anarch_core.running.runner import run


def signals(path: Path) -> Path:
    """Two classes of noise [1, 16], as a file of the data set ``tensors``."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 1, 16, generator=generator), torch.arange(24) % 2
    save_file({"x": x, "y": y, "x_test": x[:8].clone(), "y_test": y[:8].clone()}, path)
    return path


@functools.cache
def finished() -> Path:
    """A run directory; deleted when the process ends."""
    folder = Path(_kept.name)
    settings = {"model": "cnn1d", "relax": "lcn", "probe": "delta", "epochs": 1, "branch_epochs": 1, "switch": "at:0", "batch_size": 8}
    data = {"data": f"tensors:{signals(folder / 'signals.safetensors')}", "jobs": 1, "threads": 1, "device": "cpu"}
    run(resolve({**settings, **data, "options": {"cnn1d": {"channels": 2}}}), out=folder / "run", progress="silent")
    return folder / "run"


_kept = tempfile.TemporaryDirectory(prefix="campaign-run-")


def copied(folder: Path) -> Path:
    """The finished run, copied into a folder."""
    return Path(shutil.copytree(finished(), folder / "run", copy_function=shutil.copyfile))


def unfinished(run: Path) -> None:
    """Take away the result of a branch, so that there is something to resume."""
    found = [path for path in run.glob("segments/*/segment.json") if json.loads(path.read_text()).get("kind", "") != "trunk"]
    (found[0].parent / "result.json").unlink()


def checkpoint() -> Path:
    """The relaxed network of the finished run."""
    return max(finished().glob("segments/*/final.safetensors"), key=lambda path: (path.stat().st_size, path))


def rewritten(source: Path, target: Path, change: Callable[[dict[str, str]], None]) -> Path:
    """A checkpoint with other metadata and digests that fit, as somebody would write it who knows the format."""
    data: dict[str, bytearray] = {}

    def places(name: str, entry: TensorEntry) -> list[memoryview]:
        data[name] = bytearray(entry.bytes)
        return [memoryview(data[name])]

    header = read_data(source, places)
    metadata = dict(header.metadata)
    change(metadata)
    entries = layout({name: (entry.dtype, entry.shape) for name, entry in header.tensors.items()})
    write_file(target, entries, metadata, lambda name: [memoryview(data[name])])
    return target


def table(metadata: dict[str, str], key: str, change: Callable[[Any], Any]) -> None:
    """Change a value of the metadata that is JSON."""
    value = json.loads(metadata[key])
    metadata[key] = json.dumps(change(value) or value)
