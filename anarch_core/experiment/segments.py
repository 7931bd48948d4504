"""Segments of an experiment: stretches of training, each with a start, a transition and an identity."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import attrs

from anarch_core.config.early_stopping import EarlyStopping
from anarch_core.config.learning_rate import LearningRate
from anarch_core.config.stages import CONSTRAINED
from anarch_core.config.values import Precision
from anarch_core.config.weight_average import WeightAverage
from anarch_core.files.tables import canonical_json
from anarch_core.schedule import Moment

Kind = Literal["trunk", "branch", "continued", "scratch"]


@attrs.frozen(kw_only=True)
class Task:
    """What is learnt, and by which constrained network.

    Attributes:
        data: name of the data set.
        data_options: its options that differ from their defaults; likewise below.
        train_limit: number of training samples used, None for all.
        validation: part of the training set held out, a fraction or a number of samples.
        model: name of the network.
        model_options: its options.
        objective: name of the objective.
        objective_options: its options.
    """

    data: str
    data_options: Mapping[str, Any] = attrs.field(factory=dict)
    train_limit: int | None = None
    validation: float = 0.0
    model: str
    model_options: Mapping[str, Any] = attrs.field(factory=dict)
    objective: str = "cross-entropy"
    objective_options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Settings:
    """How a segment is trained.

    Attributes:
        iterations: optimizer steps.
        batch_size: samples per step.
        optimizer: its name.
        optimizer_options: options that differ from their defaults.
        learning_rate: over the segment.
        precision: arithmetic.
        augmentations: name and options of each, in the order in which they are applied.
        clip_norm: largest 2-norm of a step's gradient, None for any.
        average: of the weights, a network of its own; None without one.
        early_stopping: what ends it before its steps are done, None if nothing does.
        penalties: name and options of each, in their order; none where the network has no relaxed layer.
    """

    iterations: int
    batch_size: int
    optimizer: str
    optimizer_options: Mapping[str, Any] = attrs.field(factory=dict)
    learning_rate: LearningRate
    precision: Precision = "float32"
    augmentations: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    clip_norm: float | None = None
    average: WeightAverage | None = None
    early_stopping: EarlyStopping | None = None
    penalties: tuple[tuple[str, Mapping[str, Any]], ...] = ()


@attrs.frozen(kw_only=True)
class Transition:
    """What happens to the network before a segment is trained.

    Attributes:
        action: ``"none"``; ``"relax"``; ``"project"`` back to the constrained network; ``"scratch"``, relax and draw the weights anew.
        relaxation: name of the relaxation, None for ``"none"`` and ``"project"``.
        options: options of the relaxation that differ from their defaults.
        layers: patterns of the layers to relax or to project.
        optimizer_state: whether the parent's optimizer state is carried over.
        then: for ``"scratch"``, what else makes the network whose weights are drawn anew: further relaxations and projections, in order.
    """

    action: Literal["none", "relax", "project", "scratch"] = "none"
    relaxation: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    layers: tuple[str, ...] = ("*",)
    optimizer_state: Literal["reset", "carry"] = "reset"
    then: tuple[Transition, ...] = ()

    def __str__(self) -> str:
        """What it does to the layers: ``"tiled period=2"``, with their patterns where these are not all."""
        options = [f"{name}={value!r}" for name, value in sorted(self.options.items())]
        layers = [] if self.layers == ("*",) else [f"[{','.join(self.layers)}]"]
        return " ".join([self.relaxation or self.action, *layers, *options])


@attrs.frozen(kw_only=True, slots=False)
class Segment:
    """A stretch of training.

    Attributes:
        kind: ``"trunk"``; ``"branch"``, after a switch; the controls ``"continued"`` (the trunk's network, the branch's settings) and
            ``"scratch"`` (the relaxed network from its default initialisation).
        task: data and constrained network.
        seed: of initialisation, batch order and dropout.
        noise: of descent: which order of batches and which augmentations; 0 for those that the seed itself gives.
        settings: how it is trained.
        transition: what happens first.
        parent: the segment it starts from, None for an initialisation.
        leaves: moment of the parent at which it starts, counted from the parent's start.
        relaxation: ``"efcn"``, or ``"lcn>efcn"``, ``"lcn[features.0]>lcn"`` for stages; None for the constrained network. A label, not
            part of the identity.
        switch: moment of the switch on the trunk's clock. A label, too.
    """

    kind: Kind
    task: Task
    seed: int
    settings: Settings
    transition: Transition = Transition()
    parent: Segment | None = None
    leaves: Moment | None = None
    relaxation: str | None = None
    switch: Moment | None = None
    noise: int = 0

    @functools.cached_property
    def id(self) -> str:
        """Digest of everything that decides which weights come out: settings that differ from their defaults, and the parent's identity.

        An option added later with a default that changes nothing leaves it as it was. Labels, probes and where a segment runs are not
        part of it.
        """
        record: dict[str, Any] = {"seed": self.seed, "settings": _changed(self.settings), "transition": _changed(self.transition)}
        if self.noise:
            record["noise"] = self.noise
        if self.parent is None or self.leaves is None:
            record["task"] = _changed(self.task)
        else:
            record["parent"] = {"id": self.parent.id, "iteration": self.leaves.iteration}
        return hashlib.sha256(canonical_json(record).encode()).hexdigest()[:12]

    @property
    def order_seed(self) -> int:
        """Seed of the order of batches and of augmentations: another one for every seed and noise."""
        if not self.noise:
            return self.seed
        digest = hashlib.blake2b(f"noise:{self.seed}:{self.noise}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") >> 1

    @property
    def age(self) -> int:
        """Optimizer steps the network has been trained before this segment."""
        return 0 if self.parent is None or self.leaves is None else self.parent.age + self.leaves.iteration

    @property
    def steps(self) -> tuple[Transition, ...]:
        """The relaxations and projections that make its network of the constrained one, in order; none for the constrained one."""
        before = () if self.parent is None else self.parent.steps
        how = self.transition
        if how.action == "none":
            return before
        if how.action == "project" and how.layers == Transition().layers:
            return ()
        return (*before, attrs.evolve(how, then=()), *how.then)

    @property
    def network(self) -> str:
        """Which network is trained, one text for all segments that train such a network: ``"conv"``, ``"lcn > tiled period=2"``."""
        return " > ".join(map(str, self.steps)) or CONSTRAINED

    @property
    def title(self) -> str:
        """A short name for people: ``"efcn at 20ep, seed 0"``."""
        return title(self.kind, self.relaxation, None if self.switch is None else str(self.switch), self.seed, self.noise)

    def describe(self) -> dict[str, Any]:
        """JSON-ready description, complete but for the parent, of which it has the identity."""
        record = attrs.asdict(self, filter=lambda attribute, _: attribute.name not in ("parent", "leaves", "switch"))
        return {
            "id": self.id,
            **record,
            "parent": self.parent and self.parent.id,
            "parent_iteration": self.leaves and self.leaves.iteration,
            "switch_epoch": self.switch and self.switch.epoch,
            "switch_iteration": self.switch and self.switch.iteration,
        }


def title(kind: str, relaxation: str | None, switch: str | None, seed: object, noise: object = 0) -> str:
    """A short name of a segment for people: ``"efcn at 20ep, seed 0"``, of another order of batches ``"…, seed 0, noise 1"``."""
    name = relaxation or kind if kind in ("trunk", "branch") else f"{kind} {relaxation or ''}".rstrip()
    return f"{name}{'' if switch is None else f' at {switch}'}, seed {seed}{f', noise {noise}' if noise else ''}"


def snapshots(segments: Iterable[Segment]) -> dict[str, set[int]]:
    """By identity, the iterations of a segment at which others leave it."""
    kept: dict[str, set[int]] = {}
    for segment in segments:
        if segment.parent is not None and segment.leaves is not None:
            kept.setdefault(segment.parent.id, set()).add(segment.leaves.iteration)
    return kept


def _changed(instance: Any) -> dict[str, Any]:
    """Fields that differ from their defaults, nested records likewise."""
    changed: dict[str, Any] = {}
    for field in attrs.fields(type(instance)):
        value = getattr(instance, field.name)
        default = field.default.factory() if isinstance(field.default, attrs.Factory) else field.default  # type: ignore[arg-type]
        if value != default:
            changed[field.name] = _jsonable(value)
    return changed


def _jsonable(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    return _changed(value) if attrs.has(type(value)) else value
