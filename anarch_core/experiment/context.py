"""What all segments of a run share: data, components, device."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from anarch_core.config.run_config import RunConfig
from anarch_core.data import TensorData, load_data
from anarch_core.experiment.segments import changed_options
from anarch_core.experiment.store import RunStore
from anarch_core.models import ModelSpec, model_spec
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.records import OptimizerInfo
from anarch_core.plugin.registry import Registry
from anarch_core.probe.base import AbstractProbe
from anarch_core.schedule import AbstractSchedule
from anarch_core.training import dtype_of


class RunContext:
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


def create(registry: Registry, kind: str, spec: str, config: RunConfig) -> Any:
    """A relaxation, probe or schedule with the options that the run gives it."""
    return registry.create(kind, parse_spec(spec)[0], changed_options(config, registry, kind, spec))
