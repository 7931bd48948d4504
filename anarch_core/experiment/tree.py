"""The tree of segments that the settings of a run ask for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from anarch_core.config.files import options_key
from anarch_core.config.learning_rate import LearningRate
from anarch_core.config.run_config import RunConfig
from anarch_core.config.stages import Stage, essential
from anarch_core.errors import ConfigError
from anarch_core.experiment.segments import Segment, Settings, Task, Transition
from anarch_core.plugin.factories import is_factory
from anarch_core.plugin.options import parse_spec, to_dict
from anarch_core.plugin.registry import Registry
from anarch_core.schedule import Clock, Moment

MOST_SEGMENTS = 100_000
"""Segments of a run; more of them are a mistake in the settings, and would fill the memory before anything is trained."""


def changed_options(config: RunConfig, registry: Registry, kind: str, spec: str) -> dict[str, Any]:
    """JSON-ready options of a component, as ``name`` or ``name:value``, that differ from their defaults."""
    given = config.options.get(options_key(config, spec), {})
    if is_factory(kind, spec, registry):
        return dict(given)  # a factory of the user's
    info, given = registry.chosen(kind, spec, given)
    options = registry.parse_options(info, given)
    return {} if options is None else to_dict(options, only_changed=True)


def chosen_penalties(config: RunConfig, registry: Registry) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """Name and options of each penalty of a run, in their order."""
    return tuple((parse_spec(spec)[0], changed_options(config, registry, "penalty", spec)) for spec in config.penalty)


def tree(config: RunConfig, clock: Clock, switches: Mapping[int, Iterable[Moment]], registry: Registry) -> tuple[Segment, ...]:
    """All segments of a run, parents first, each once.

    Args:
        config: the run, complete (see :func:`anarch_core.config.resolution.complete`).
        clock: of the trunk.
        switches: by seed, the moments known so far at which branches leave the trunk.
        registry: to tell which options differ from their defaults.

    Raises:
        ConfigError: a staged path leaves the trunk's clock or does not ascend, or there are more segments than :data:`MOST_SEGMENTS`.
    """
    grow = _Grower(config, clock, registry)
    segments: dict[str, Segment] = {}
    for seed in config.seeds:
        for segment in grow.seed(seed, sorted(set(switches.get(seed, ())))):
            segments.setdefault(segment.id, segment)
        if len(segments) > MOST_SEGMENTS:
            msg = (
                f"seeds: {len(config.seeds):,} of them, at each switch of {config.switch!r} and for each relaxation, make more than "
                f"{MOST_SEGMENTS:,} segments; take fewer seeds or switch times"
            )
            raise ConfigError(msg)
    return tuple(segments.values())


class _Grower:
    """Makes the segments of one seed."""

    def __init__(self, config: RunConfig, clock: Clock, registry: Registry) -> None:
        self.config, self.clock, self.registry = config, clock, registry
        model = config.model or ""
        self.task = Task(
            data=config.data if is_factory("dataset", config.data, registry) else parse_spec(config.data)[0],
            data_options=self.options("dataset", config.data),
            train_limit=config.train_limit,
            validation=config.validation,
            model=model,
            model_options=self.options("model", model),
            objective=parse_spec(config.objective)[0],
            objective_options=self.options("objective", config.objective),
        )
        self.penalties = chosen_penalties(config, registry)
        self.paths = [[(stage, Moment.parse(stage.moment, clock.iterations_per_epoch)) for stage in stages] for stages in config.stages]
        for text, stages in zip(config.path, self.paths, strict=True):
            moments = [moment for _, moment in stages]
            if moments[0].iteration > clock.iterations or any(not a < b for a, b in itertools.pairwise(moments)):
                msg = f"path {text!r}: the moments must ascend and the first must lie within the trunk's {clock.epochs} epochs"
                raise ConfigError(msg)

    def options(self, kind: str, spec: str) -> dict[str, Any]:
        return changed_options(self.config, self.registry, kind, spec)

    def settings(self, iterations: int, *, branch: bool) -> Settings:
        learning_rate = self.config.learning_rate(branch=branch)
        self.require_room(learning_rate, iterations, "branch_lr_schedule" if branch else "lr_schedule")
        return Settings(
            iterations=iterations,
            batch_size=self.config.batch_size,
            optimizer=self.config.optimizer,
            optimizer_options=self.options("optimizer", self.config.optimizer),
            learning_rate=learning_rate,
            precision=self.config.precision,
            augmentations=tuple((parse_spec(spec)[0], self.options("augmentation", spec)) for spec in self.config.augment),
            clip_norm=self.config.clip_norm,
            average=self.config.weight_average,
            early_stopping=self.config.early_stopping,
        )

    def penalised(self, segment: Segment) -> Segment:
        """The segment with the penalties of the run, if its network has layers that they could hold; where it starts is known."""
        if not self.penalties or not segment.steps:
            return segment
        return attrs.evolve(segment, settings=attrs.evolve(segment.settings, penalties=self.penalties))

    def require_room(self, learning_rate: LearningRate, iterations: int, where: str) -> None:
        """Refuse a stretch that ends within the warm-up of its learning rate."""
        try:
            learning_rate.require_room(iterations, self.clock.iterations_per_epoch)
        except ConfigError as error:
            msg = f"{where}: {error}"
            raise ConfigError(msg) from None

    def relaxing(self, relaxation: str, layers: Sequence[str] | None = None) -> Transition:
        return Transition(
            action="relax",
            relaxation=parse_spec(relaxation)[0],
            options=self.options("relaxation", relaxation),
            layers=self.config.layers if layers is None else tuple(layers),
            optimizer_state=self.config.optimizer_state,
        )

    def at(self, stage: Stage) -> Transition:
        if not stage.constrained:
            return self.relaxing(stage.family, stage.layers)
        layers = Transition().layers if stage.layers is None else stage.layers
        return Transition(action="project", layers=layers, optimizer_state=self.config.optimizer_state)

    def scratch(self) -> Mapping[str, Transition]:
        """By label, how each network at the end of a branch is made to have its weights drawn anew."""
        made = {relaxation: [self.relaxing(relaxation)] for relaxation in self.config.relax}
        for stages in self.config.stages:
            last = essential(stages, self.registry)
            if last:
                made.setdefault(">".join(stage.label for stage in last), [self.at(stage) for stage in last])
        return {label: _scratch([attrs.evolve(step, optimizer_state="reset") for step in steps]) for label, steps in made.items()}

    def seed(self, seed: int, switches: Sequence[Moment]) -> Iterator[Segment]:
        config, length = self.config, self.config.branch_epochs * self.clock.iterations_per_epoch
        trunk = Segment(kind="trunk", task=self.task, seed=seed, settings=self.settings(self.clock.iterations, branch=False))
        after = self.settings(length, branch=True)
        yield trunk
        for noise in config.noise_seeds:
            yield from self.after_switches(trunk, noise, switches, after)

    def after_switches(self, trunk: Segment, noise: int, switches: Sequence[Moment], after: Settings) -> Iterator[Segment]:
        """All but the trunk, with one order of batches."""
        config = self.config
        blank = Segment(kind="branch", task=self.task, seed=trunk.seed, noise=noise, settings=after)
        if "scratch" in config.control:
            for relaxation, transition in self.scratch().items():
                yield self.penalised(attrs.evolve(blank, kind="scratch", transition=transition, relaxation=relaxation))
        leaving = set(switches) if config.relax or not config.path else set()
        for moment in sorted(leaving | {stages[0][1] for stages in self.paths}):
            child = attrs.evolve(blank, parent=trunk, leaves=moment, switch=moment)
            if "continued" in config.control:
                yield attrs.evolve(child, kind="continued", transition=Transition(optimizer_state=config.optimizer_state))
            if moment in leaving:
                for relaxation in config.relax:
                    yield self.penalised(attrs.evolve(child, transition=self.relaxing(relaxation), relaxation=relaxation))
        for stages in self.paths:
            yield from self.path(trunk, noise, stages, after)

    def path(self, trunk: Segment, noise: int, stages: Sequence[tuple[Stage, Moment]], after: Settings) -> Iterator[Segment]:
        """The chain of a staged path: each stage is trained until the next begins, the last one like any branch."""
        parent, label = trunk, ""
        for (stage, moment), following in zip(stages, [*(moment for _, moment in stages[1:]), None], strict=True):
            label = f"{label}>{stage.label}" if label else stage.label
            length = after.iterations if following is None else following.iteration - moment.iteration
            self.require_room(after.learning_rate, length, f"stage {stage.label}@{stage.moment}")
            segment = Segment(
                kind="branch",
                task=self.task,
                seed=trunk.seed,
                noise=noise,
                settings=attrs.evolve(after, iterations=length),
                transition=self.at(stage),
                parent=parent,
                leaves=Moment(moment.iteration - parent.age, moment.iterations_per_epoch),
                relaxation=label,
                switch=moment,
            )
            parent = self.penalised(segment)
            yield parent


def _scratch(steps: Sequence[Transition]) -> Transition:
    return attrs.evolve(steps[0], action="scratch", then=tuple(steps[1:]))
