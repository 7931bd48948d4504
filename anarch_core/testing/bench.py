"""A small run for workers to train, before anything of it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from safetensors.torch import save_file

from anarch_core.config.resolution import resolve
from anarch_core.experiment.context import RunContext
from anarch_core.experiment.events import Job
from anarch_core.experiment.segments import Segment, snapshots
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import tree
from anarch_core.plugin.registry import Registry
from anarch_core.running.preparation import prepare
from anarch_core.schedule import Clock


@attrs.frozen(kw_only=True)
class Bench:
    """A run directory before anything is trained.

    Attributes:
        context: what its segments share.
        segments: by what they are called below: ``"trunk"``, ``"branch"``, ``"continued"`` and, where asked for, later ones.
    """

    context: RunContext
    segments: Mapping[str, Segment]

    @classmethod
    def at(cls, folder: Path, registry: Registry, settings: Mapping[str, Any]) -> Bench:
        """A run on forty signals of three kinds.

        Args:
            folder: not there yet, or with the bench that an earlier call made of the same settings; the data are beside it.
            registry: where components are looked up.
            settings: those that the workers decide, and how long it trains.
        """
        data = folder.parent / "signals.safetensors"
        if not data.exists():
            generator = torch.Generator().manual_seed(0)
            y = torch.arange(40) % 3
            x = torch.sin(torch.arange(16) * (y[:, None] + 1) * 0.7)[:, None, :] + 0.5 * torch.randn(40, 1, 16, generator=generator)
            data.parent.mkdir(parents=True, exist_ok=True)
            save_file({"x": x, "y": y, "x_test": x.clone(), "y_test": y.clone()}, data)
        own = {"data": f"tensors:{data}", "batch_size": 10, "threads": 1, "device": "cpu", "out": folder / "run"}
        config = resolve({**own, **settings}, registry=registry)
        context = RunContext.open(config, RunStore(folder / "run"), registry)
        prepare(context, config if context.store.config_file.exists() else None)
        clock = Clock(config.epochs, context.iterations_per_epoch)
        segments = tree(config, clock, {0: set(context.moments(clock))}, registry)
        named = {}
        for segment in segments:
            named[segment.kind if segment.kind not in named else f"later {segment.kind}"] = segment
        return cls(context=context, segments=named)

    def job(self, name: str) -> Job:
        """A segment to be trained."""
        segment = self.segments[name]
        return Job(segment=segment, keep=frozenset(snapshots(self.segments.values()).get(segment.id, ())))

    def folder(self, name: str) -> Path:
        """Where a segment is kept."""
        return self.context.store.segment(self.segments[name].id).path

    def damage(self, name: str) -> None:
        """Spoil the snapshot that a segment starts from, so that training it raises."""
        path = self.context.store.snapshot_left(self.segments[name])
        assert path is not None
        path.write_bytes(path.read_bytes()[:100])
