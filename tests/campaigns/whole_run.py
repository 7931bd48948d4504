"""A run of seconds with all that a run has, and what must come out of it whatever happens on the way."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import torch
from forked import Forked
from safetensors.torch import save_file

from anarch_core.experiment.results import Results

OPTIONS = (
    "--model", "cnn1d", "--cnn1d-channels", 3, "--batch-size", 10, "--relax", "efcn", "--epochs", 12, "--branch-epochs", 8,
    "--switch", "at:0,3", "--optimizer-state", "carry", "--sgd-momentum", 0.9, "--probe", "delta", "--threads", 1, "--device", "cpu",
)  # fmt: skip


@functools.cache
def signals() -> Path:
    """Three classes of noisy waves [1, 16]: 40 to train on, 20 to test on."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    x = (torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7) + 0.5 * torch.randn(60, 16, generator=generator))[:, None, :]
    path = _kept() / "signals.safetensors"
    save_file({"x": x[:40].clone(), "y": y[:40].clone(), "x_test": x[40:].clone(), "y_test": y[40:].clone()}, path)
    return path


def command(jobs: int, *more: object) -> tuple[object, ...]:
    """``run ...`` into the folder ``run``."""
    return ("run", "--data", f"tensors:{signals()}", *OPTIONS, "--jobs", jobs, "--out", "run", *more)


def files(run: Path) -> dict[str, bytes]:
    """Every file that holds weights or a history."""
    found = [*run.glob("segments/**/*.safetensors"), *run.glob("segments/*/history.jsonl")]
    return {str(file.relative_to(run)): file.read_bytes() for file in found}


@functools.cache
def left_alone(*more: object) -> dict[str, bytes]:
    """The files of the run that nothing happened to."""
    folder = Path(tempfile.mkdtemp(dir=_kept()))
    with Forked(*command(1, *more), folder=folder) as process:
        process.ended().done()
    return files(folder / "run")


def finish(folder: Path, *more: object, resume: bool = True) -> None:
    """Go on to the same bytes: with ``resume`` if a run began and nothing else is asked for, else with the command.

    Raises:
        AssertionError: it does not, or to others.
    """
    run = folder / "run"
    again = ("resume", "run") if resume and (run / "config.toml").exists() else command(1, *more)
    with Forked(*again, folder=folder) as process:
        process.ended().done()
    found, wanted = files(run), left_alone(*more)
    assert found.keys() == wanted.keys(), f"files differ: {sorted(found.keys() ^ wanted.keys())}"
    assert found == wanted, f"other bytes in {[name for name in found if found[name] != wanted[name]]}"
    results = Results.read(run)
    assert results.status == "finished"
    assert not results.failed
    assert not results.skipped


@functools.cache
def _kept() -> Path:
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="campaign-"))
    return Path(_FOLDERS[0].name)


_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []
