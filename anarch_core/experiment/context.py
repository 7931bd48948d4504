"""What all segments of a run share: data, components, device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs
import torch
from torch import nn

from anarch_core.augmentation import AbstractAugmentation, Augmenting
from anarch_core.cards import first_device
from anarch_core.checkpoint import network as checkpoint
from anarch_core.config.files import plain_name
from anarch_core.config.run_config import RunConfig
from anarch_core.data.loading import load_data
from anarch_core.data.order import batches_per_epoch
from anarch_core.data.tensor_data import TensorData
from anarch_core.errors import ConfigError, PluginError
from anarch_core.experiment.machines import TRAINED, Machine, this_machine
from anarch_core.experiment.segments import Segment, Transition
from anarch_core.experiment.store import RunStore
from anarch_core.experiment.tree import changed_options, chosen_penalties
from anarch_core.machine import available_bytes
from anarch_core.models import ModelSpec, model_spec
from anarch_core.plugin.blame import answering, expected, origin
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.records import OptimizerInfo
from anarch_core.plugin.registry import Registry
from anarch_core.probe.base import AbstractProbe
from anarch_core.relaxation.report import Relaxed
from anarch_core.relaxation.verbs import project, relax
from anarch_core.schedule import AbstractSchedule, Clock, Moment
from anarch_core.sharding.shards import Shards
from anarch_core.training.averages import RunningAverage
from anarch_core.training.penalty import AbstractPenalty, Penalties
from anarch_core.training.precision import dtype_of

T = TypeVar("T")

ON_THE_DEVICE = 0.5
"""Share of a device's free memory that data take at most there, where nobody says where they are to be."""


@attrs.frozen(kw_only=True)
class RunContext:
    """What all segments of a run share: plain data that nobody writes to; :meth:`open` makes it.

    Attributes:
        config: the run, complete, with ``device`` resolved.
        store: the run directory.
        registry: where components are looked up.
        device: where everything is trained.
        data: the data set, on the device and in the arithmetic of the run.
        spec: what the constrained network is built from.
        probes: by name.
        watched: probes of the trunk while it is trained, by name.
        schedule: of the switch times.
        augmentations: by name, in the order in which they are applied.
        source: gives the data set anew, wherever it is kept.
        chained: whether the small layers of a network are trained as chains, by :attr:`Segment.network`; where it is not known, they are.
        shards: the processes that train one segment together, of which this is one; None where this one trains alone.
    """

    config: RunConfig
    store: RunStore
    registry: Registry
    device: torch.device
    data: TensorData
    spec: ModelSpec
    probes: Mapping[str, AbstractProbe]
    watched: Mapping[str, AbstractProbe]
    schedule: AbstractSchedule
    augmentations: Mapping[str, AbstractAugmentation]
    source: Callable[[], TensorData]
    chained: Mapping[str, bool] = attrs.field(factory=dict)
    shards: Shards | None = None

    @classmethod
    def open(cls, config: RunConfig, store: RunStore, registry: Registry, source: Callable[[], TensorData] | None = None) -> RunContext:
        """Load the data and build the components.

        Args:
            config: the run, complete, with ``device`` resolved; of several cards, the first is looked into and trained on here.
            store: the run directory; nothing is written.
            registry: where components are looked up.
            source: gives the data set, which is loaded if not given.

        Raises:
            AnarchError: the data cannot be loaded, or a component does not take its options; or what is to stop early has no such score; or
                steps have to be captured on a device that cannot.
        """
        if config.capture == "on" and torch.device(first_device(config.device)).type != "cuda":
            msg = f"capture 'on' needs a card, and the device is {config.device}; use capture auto, which captures where it can"
            raise ConfigError(msg)
        model, source = config.model or "", source or partial(_load, config, registry)
        data = _placed(source(), config)
        if config.early_stopping is not None:
            config.early_stopping.higher_is_better(data.objective.directions)
        shape = data.output_shape
        spec = model_spec(
            model,
            input_shape=data.input_shape,
            classes=shape[0],
            options=changed_options(config, registry, "model", model),
            registry=registry,
        )
        return cls(
            config=config,
            store=store,
            registry=registry,
            device=torch.device(first_device(config.device)),
            data=data,
            spec=spec if len(shape) == 1 else attrs.evolve(spec, output_shape=shape),
            probes={name: create(registry, "probe", name, config) for name in config.probe},
            watched={name: create(registry, "probe", name, config) for name in config.watched_probes},
            schedule=create(registry, "schedule", config.switch, config),
            augmentations={plain_name(name): create(registry, "augmentation", name, config) for name in config.augment},
            source=source,
        )

    def machine(self, did: str = TRAINED) -> Machine:
        """What trains a segment here, for its record."""
        return this_machine(self.device, did, 1 if self.shards is None else self.shards.size)

    @property
    def iterations_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return batches_per_epoch(len(self.data.y_train), self.config.batch_size)

    def augmenting(self, seed: int) -> Augmenting | None:
        """What is done to training inputs; None for nothing."""
        return Augmenting(self.augmentations, seed) if self.augmentations else None

    def penalising(
        self, model: nn.Module, iterations: int, penalties: Iterable[tuple[str, Mapping[str, Any]]] | None = None
    ) -> Penalties | None:
        """The penalties of a stretch of training, as they are at its first step; None where nothing is ever added.

        Args:
            model: the network.
            iterations: length of the stretch in optimizer steps.
            penalties: name and options of each; those of the run by default.
        """
        penalties = chosen_penalties(self.config, self.registry) if penalties is None else penalties
        made: dict[str, AbstractPenalty] = {name: self.registry.create("penalty", name, options) for name, options in penalties}
        return Penalties(made, model, iterations, self.iterations_per_epoch) or None

    def measuring(self, probes: Iterable[str]) -> RunContext:
        """The same with these of its probes alone."""
        return attrs.evolve(self, probes={name: self.probes[name] for name in probes})

    def reread(self) -> TensorData:
        """The data set once more, as :meth:`open` loaded it."""
        return _placed(self.source(), self.config)

    def aside(self) -> RunContext:
        """The same with its data in the host's memory, where it takes nothing of a card that other processes train on."""
        aside = attrs.evolve(self, data=self.data.to("cpu"))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return aside

    def moments(self, clock: Clock) -> tuple[Moment, ...]:
        """The moments of switching that the schedule knows before the trunk is trained.

        Raises:
            AnarchError: the schedule has none for such a trunk, or gives what are no moments of it.
        """
        found = answering(self.schedule.moments, tuple, list)(clock)
        for moment in found:
            expected(origin(self.schedule), "moments() with", moment, Moment)
            if moment.iterations_per_epoch != clock.iterations_per_epoch or not 0 <= moment.iteration <= clock.iterations:
                msg = f"{origin(self.schedule)}: {moment} is no moment of a trunk of {clock.epochs} epochs"
                raise PluginError(msg)
        return tuple(found)

    def probe_moments(self, segment: Segment) -> tuple[Moment, ...]:
        """The moments between the start and the end of a segment, counted from its start, at which it is measured; ascending."""
        found = {Moment.parse(text, self.iterations_per_epoch) for text in self.config.probe_at}
        return tuple(sorted(moment for moment in found if 0 < moment.iteration < segment.settings.iterations))

    def build(self, seed: int) -> nn.Module:
        """The constrained network at its initialisation."""
        model = self.spec.build(seed=seed, registry=self.registry, trusted=True)
        return model.to(self.device, dtype_of(self.config.precision))

    def load(self, file: Path, seed: int) -> nn.Module:
        """The network in a checkpoint of a segment of that seed."""
        base = self.build(seed) if self.spec.is_import else None
        return checkpoint.load(file, model=base, device=self.device, registry=self.registry, shards=self.shards)

    def agreed(self, value: T) -> T:
        """What the first of the processes says that train a segment together; the value itself where this one trains alone."""
        return value if self.shards is None else self.shards.agreed(value)

    def by_first(self, do: Callable[[], T]) -> T:
        """Have the first of them do something that reads or writes files, and tell the others what came of it."""
        return do() if self.shards is None else self.shards.agreed(do() if self.shards.leads else cast(T, None))

    def relaxed(self, model: nn.Module, transition: Transition, *, check: bool = True) -> Relaxed:
        """A network with the layers that a transition gives it; see :func:`anarch_core.relaxation.verbs.relax`."""
        return relax(
            model,
            transition.relaxation or "",
            example_input=self.data.inputs("train")[:2],
            layers=transition.layers,
            options=transition.options,
            check=check,
            shards=self.shards,
            registry=self.registry,
        )

    def follow(self, model: nn.Module, steps: Iterable[Transition], *, check: bool = True) -> nn.Module:
        """The network at the end of relaxations and projections."""
        for step in steps:
            model = project(model, layers=step.layers) if step.action == "project" else self.relaxed(model, step, check=check).model
        return model

    def optimizer(self, model: nn.Module, lr: float) -> torch.optim.Optimizer:
        """A fresh optimizer of the run's kind, over the parameters that are trained.

        Raises:
            ConfigError: there are none.
            PluginError: it cannot be built, or is no optimizer.
        """
        info = self.registry.find("optimizer", self.config.optimizer)
        options = self.registry.parse_options(info, changed_options(self.config, self.registry, "optimizer", self.config.optimizer))
        parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        if not parameters:
            msg = f"model {self.spec} cannot be trained: its outputs depend on no parameter that requires a gradient; set requires_grad"
            raise ConfigError(msg)
        network = (model,) if cast(OptimizerInfo, info).takes_model else ()
        made = self.registry.call(info, parameters, lr, options, *network)
        return expected(self.registry.origin(info), "it", made, torch.optim.Optimizer)

    def running_average(self, model: nn.Module, iterations: int) -> RunningAverage | None:
        """What keeps the average of the weights that a segment of so many steps passes through; None where the run takes none."""
        wanted = self.config.weight_average
        return None if wanted is None else RunningAverage(model, wanted.kind, wanted.number, iterations)


def _load(config: RunConfig, registry: Registry) -> TensorData:
    return load_data(
        config.data,
        root=config.data_root,
        options=changed_options(config, registry, "dataset", config.data),
        limit=config.train_limit,
        validation=config.validation or None,
        objective=create(registry, "objective", config.objective, config),
        whole=False,
        registry=registry,
    )


def _placed(data: TensorData, config: RunConfig) -> TensorData:
    """The data where they are kept: inputs on the device, or in the host's memory and files."""
    device, place = torch.device(first_device(config.device)), config.data_on
    if place == "auto":
        place = "device" if data.bytes_to_load(device) <= ON_THE_DEVICE * available_bytes(device) else "host"
    data = data.whole() if place == "device" else data.kept_on_host()
    return data.to(device, dtype_of(config.precision))


def create(registry: Registry, kind: str, spec: str, config: RunConfig) -> Any:
    """A relaxation, probe or schedule with the options that the run gives it."""
    return registry.create(kind, parse_spec(spec)[0], changed_options(config, registry, kind, spec))
