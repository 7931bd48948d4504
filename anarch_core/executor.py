"""What all segments of a run share: data, components, device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from anarch_core.api import OptimizerInfo
from anarch_core.config import RunConfig
from anarch_core.data import TensorData, load_data
from anarch_core.events import Emit, Job
from anarch_core.execution import Execution
from anarch_core.models import ModelSpec, model_spec
from anarch_core.options import parse_spec
from anarch_core.probe import AbstractProbe
from anarch_core.registry import Registry
from anarch_core.schedule import AbstractSchedule
from anarch_core.segments import changed_options
from anarch_core.store import RunStore
from anarch_core.training import dtype_of, matmul_precision


class Executor:
    """Trains segments of one run, one after the other, on one device.

    Args:
        config: the run, complete, with ``device`` resolved.
        store: the run directory.
        registry: where components are looked up.
    """

    def __init__(self, config: RunConfig, store: RunStore, registry: Registry) -> None:
        self.config, self.store, self.registry = config, store, registry
        self.device = torch.device(config.device)
        model = config.model or ""
        self.data: TensorData = load_data(
            config.data,
            root=config.data_root,
            options=changed_options(config, registry, "dataset", config.data),
            limit=config.train_limit,
            validation=config.validation or None,
            registry=registry,
        ).to(self.device, dtype_of(config.precision))
        self.spec: ModelSpec = model_spec(
            model,
            input_shape=self.data.input_shape,
            classes=self.data.classes,
            options=changed_options(config, registry, "model", model),
            registry=registry,
        )
        self.probes: dict[str, AbstractProbe] = {name: create(registry, "probe", name, config) for name in config.probe}
        self.schedule: AbstractSchedule = create(registry, "schedule", config.switch, config)

    @property
    def iterations_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return -(-len(self.data.y_train) // self.config.batch_size)

    def build(self, seed: int) -> nn.Module:
        """The constrained network at its initialisation."""
        model = self.spec.build(seed=seed, registry=self.registry, trusted=True)
        return model.to(self.device, dtype_of(self.config.precision))

    def optimizer(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """A fresh optimizer: the place where an engine that fuses the update into layers would take their parameters over."""
        info = self.registry.find("optimizer", self.config.optimizer)
        options = self.registry.parse_options(info, changed_options(self.config, self.registry, "optimizer", self.config.optimizer))
        parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        network = (model,) if cast(OptimizerInfo, info).takes_model else ()
        optimizer: torch.optim.Optimizer = self.registry.target(info)(parameters, lr, options, *network)
        return optimizer

    def run(self, job: Job, emit: Emit, stop: Callable[[], bool]) -> dict[str, Any] | None:
        """Train a segment from where it was left to its end.

        Args:
            job: the segment.
            emit: told what happens.
            stop: asked after every step; when true, the state is saved and None returned.

        Returns:
            the result, which is also in the segment's result file; None if stopped.
        """
        store = self.store.segment(job.segment.id)
        with store.lock(), matmul_precision(self.config.precision), _own_randomness(self.device):
            if store.done:
                return store.result()
            return Execution(self, job, store, emit).run(stop)


def create(registry: Registry, kind: str, spec: str, config: RunConfig) -> Any:
    """A relaxation, probe or schedule with the options that the run gives it."""
    return registry.create(kind, parse_spec(spec)[0], changed_options(config, registry, kind, spec))


@contextmanager
def _own_randomness(device: torch.device) -> Iterator[None]:
    """Leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
