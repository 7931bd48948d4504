"""The settings of a run. Flags, TOML keys and their documentation all come from the fields of :class:`RunConfig`."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, get_args

import attrs

from anarch_core.bounds import MANY, shown
from anarch_core.config import values
from anarch_core.config.early_stopping import EarlyStopping
from anarch_core.config.learning_rate import LearningRate
from anarch_core.config.setting import named, setting
from anarch_core.config.stages import Stage
from anarch_core.config.weight_average import WeightAverage
from anarch_core.display import Overview, Table
from anarch_core.errors import ConfigError
from anarch_core.schedule import Moment

GRADIENT_NORM = "gradient_norm"
"""Name of the mean norm of the gradients of an epoch's steps, among what is watched and in the history."""


def _default_control(config: RunConfig) -> tuple[values.Control, ...]:
    return get_args(values.Control) if config.relax or config.path else ()


@attrs.frozen(kw_only=True, field_transformer=named)
class RunConfig:
    """Everything that defines a run. Instances are valid: combinations that make no sense are refused when one is built.

    Values may be given as on the command line (``relax="efcn,lcn"``, ``seeds="0-4"``, ``control="none"``) or as Python values.

    Raises:
        ConfigError: a value of the wrong type or range, or an impossible combination.
    """

    data: str = attrs.field(
        default="mnist1d",
        converter=values.text,
        metadata=setting("Data set: a name or package.module:factory.", metavar="NAME", kind="dataset"),
    )
    model: str | None = attrs.field(
        default=None,
        converter=values.text_or_none,
        metadata=setting("Network: a name or package.module:factory; the data set's usual one if not given.", metavar="NAME", kind="model"),
    )
    objective: str = attrs.field(
        default="cross-entropy",
        converter=values.text,
        metadata=setting(
            "What networks are trained for: the loss, and the scores beside it.", metavar="NAME", kind="objective", later=True
        ),
    )
    relax: tuple[str, ...] = attrs.field(
        default=(),
        converter=values.names,
        metadata=setting("Relaxations; each gives branches of its own.", metavar="NAMES", kind="relaxation", grows=True),
    )
    probe: tuple[str, ...] = attrs.field(
        default=(),
        converter=values.names,
        metadata=setting("Probes, run at the start and end of every segment.", metavar="NAMES", kind="probe", grows=True),
    )
    probe_at: tuple[str, ...] = attrs.field(
        default=(),
        converter=values.moments,
        metadata=setting(
            "Moments of every segment, counted from its start, at which probes measure it besides its start and end: 1,5,20 or 500it; its "
            "network is kept there.",
            metavar="MOMENTS",
            grows=True,
            later=True,
        ),
    )
    layers: tuple[str, ...] = attrs.field(
        default=("*",),
        converter=values.names,
        metadata=setting("Layers to relax, as name patterns; a leading ! excludes.", metavar="PATTERNS", grows=True),
    )
    switch: str = attrs.field(
        default="log",
        converter=values.text,
        metadata=setting(
            "When to switch: log:20, at:0,10,40, plateau:5 or when:gradient_norm:below:0.5.",
            metavar="SCHEDULE",
            kind="schedule",
            grows=True,
        ),
    )
    path: tuple[str, ...] = attrs.field(
        default=(),
        converter=values.paths,
        metadata=setting(
            "A staged relaxation, as in lcn@10,efcn@40,conv@80, or layer by layer, lcn[features.0]@10,lcn@40; moments count from the "
            "start of the trunk.",
            metavar="STAGES",
            grows=True,
        ),
    )
    watch: tuple[str, ...] = attrs.field(
        default=(),
        converter=values.names,
        metadata=setting(
            "What is measured of the trunk while it is trained, into its history: probes, and gradient_norm, the mean norm of its steps' "
            "gradients.",
            metavar="NAMES",
            grows=True,
            later=True,
        ),
    )
    watch_every: int = attrs.field(
        default=1,
        converter=values.epochs,
        metadata=setting(
            "Epochs from one measurement of watched probes to the next.", metavar="N", range=values.EPOCHS, grows=True, later=True
        ),
    )
    epochs: int = attrs.field(
        default=150, converter=values.epochs, metadata=setting("Epochs of the trunk.", metavar="N", range=values.EPOCHS)
    )
    branch_epochs: int = attrs.field(
        default=100, converter=values.epochs, metadata=setting("Epochs after the switch.", metavar="N", range=values.EPOCHS)
    )
    seeds: tuple[int, ...] = attrs.field(
        default=(0,), converter=values.seeds, metadata=setting("Seeds, each a tree of its own: 0,1,2 or 0-4.", metavar="SEEDS", grows=True)
    )
    noise_seeds: tuple[int, ...] = attrs.field(
        default=(0,),
        converter=values.seeds,
        metadata=setting(
            "Orders of batches after a switch: 0 is the seed's own, 0,1 trains every branch and control once more with another.",
            metavar="SEEDS",
            grows=True,
            later=True,
        ),
    )
    control: tuple[values.Control, ...] = attrs.field(
        default=attrs.Factory(_default_control, takes_self=True),
        converter=values.controls,
        metadata=setting(
            "Controls: continued (the same network with the branch's settings), scratch (the relaxed network from its default "
            "initialisation), or none; both if there is something to relax.",
            metavar="NAMES",
            grows=True,
        ),
    )
    optimizer: str = attrs.field(default="sgd", converter=values.text, metadata=setting("Optimizer.", metavar="NAME", kind="optimizer"))
    optimizer_state: values.OptimizerState = attrs.field(
        default="reset", converter=values.optimizer_state, metadata=setting("What a switch does to the optimizer's state.")
    )
    lr: float = attrs.field(
        default=0.1,
        converter=values.learning_rate,
        metadata=setting("Learning rate of the trunk.", metavar="X", range=values.LEARNING_RATE),
    )
    branch_lr: float = attrs.field(
        default=0.01,
        converter=values.learning_rate,
        metadata=setting("Learning rate after the switch.", metavar="X", range=values.LEARNING_RATE),
    )
    lr_schedule: str = attrs.field(
        default="constant",
        converter=values.learning_rate_schedule,
        metadata=setting(
            "Learning rate over the trunk: constant, cosine or step:30,60 (step:30,60@0.2 for another factor than 0.1); after a warm-up "
            "warmup:5, warmup:500it+cosine.",
            metavar="SCHEDULE",
        ),
    )
    branch_lr_schedule: str = attrs.field(
        default="constant",
        converter=values.learning_rate_schedule,
        metadata=setting("Learning rate after the switch, likewise; epochs count from the switch.", metavar="SCHEDULE"),
    )
    batch_size: int = attrs.field(default=250, converter=values.count, metadata=setting("Samples per step.", metavar="N", range=MANY))
    augment: tuple[str, ...] = attrs.field(
        default=(),
        converter=values.names,
        metadata=setting(
            "Augmentations of training inputs, one after another, as in crop:4,flip,cutout:8.",
            metavar="NAMES",
            kind="augmentation",
            later=True,
        ),
    )
    penalty: tuple[str, ...] = attrs.field(
        default=(),
        converter=values.names,
        metadata=setting(
            "Penalties on what makes relaxed layers differ from constrained ones, beside the loss of branches, as in parts:0.1.",
            metavar="NAMES",
            kind="penalty",
            later=True,
        ),
    )
    clip_norm: float | None = attrs.field(
        default=None,
        converter=values.norm_or_none,
        metadata=setting(
            "Largest 2-norm of a step's whole gradient; a longer one is shortened to it.", metavar="X", range=values.NORM, later=True
        ),
    )
    average: str | None = attrs.field(
        default=None,
        converter=values.weight_average,
        metadata=setting(
            "Average of the weights, a network of its own: ema:0.999 (decay per step) or swa:0.75 (ends of epochs after that share).",
            metavar="AVERAGE",
            later=True,
        ),
    )
    stop_early: str | None = attrs.field(
        default=None,
        converter=values.early_stopping,
        metadata=setting(
            "End a segment after so many epochs in which validation loss, or another score, has not improved: 10, validation_accuracy:10.",
            metavar="RULE",
            later=True,
        ),
    )
    precision: values.Precision = attrs.field(default="float32", converter=values.precision, metadata=setting("Arithmetic of training."))
    data_root: Path | None = attrs.field(
        default=None, converter=values.folder_or_none, metadata=setting("Folder the data is found in.", metavar="DIR", grows=True)
    )
    data_on: values.DataPlace = attrs.field(
        default="auto",
        converter=values.data_place,
        metadata=setting(
            "Where inputs are kept: device, host (read a batch at a time, ahead), or auto (on the device if they take half of what is free "
            "there at most).",
            identity=False,
        ),
    )
    train_limit: int | None = attrs.field(
        default=None, converter=values.count_or_none, metadata=setting("Use only that many training samples.", metavar="N", range=MANY)
    )
    validation: float = attrs.field(
        default=0.0,
        converter=values.validation,
        metadata=setting("Part of the training set to hold out: a fraction, or a number of samples.", metavar="X"),
    )
    device: str = attrs.field(
        default="auto",
        converter=values.device,
        metadata=setting(
            "Device: auto, cpu, cuda (every card), cuda:N, or several cards as in cuda:0,cuda:2.", metavar="DEVICE", identity=False
        ),
    )
    workers: str = attrs.field(
        default="local",
        converter=values.text,
        metadata=setting(
            "Who trains the segments: local, on this machine; ray or slurm, on others.", metavar="NAME", kind="workers", identity=False
        ),
    )
    jobs: int | None = attrs.field(
        default=None,
        converter=values.processes,
        metadata=setting(
            "Segments to train at once, each in its own process; with cards, on each of them; auto if not given.",
            metavar="N",
            range=values.PROCESSES,
            identity=False,
        ),
    )
    shards: int = attrs.field(
        default=1,
        converter=values.shards,
        metadata=setting(
            "Processes that train one segment together, each with a part of every relaxed layer.",
            metavar="P",
            range=values.PROCESSES,
            identity=False,
        ),
    )
    threads: int | None = attrs.field(
        default=None,
        converter=values.processes,
        metadata=setting("Processor threads per process; auto if not given.", metavar="N", range=values.PROCESSES, identity=False),
    )
    capture: values.Capture = attrs.field(
        default="auto",
        converter=values.capture,
        metadata=setting("Training steps on a card as CUDA graphs: auto, where they do as ordinary ones.", identity=False),
    )
    observe: tuple[str, ...] = attrs.field(
        default=(),
        converter=values.names,
        metadata=setting("Observers, told what happens: jsonl, tensorboard.", metavar="NAMES", kind="observer", identity=False),
    )
    out: Path | None = attrs.field(
        default=None,
        converter=values.folder_or_none,
        metadata=setting("Run directory; one under runs/ if not given.", metavar="DIR", identity=False),
    )
    recipe: str | None = attrs.field(
        default=None, converter=values.text_or_none, metadata=setting("Named settings to start from.", metavar="NAME", identity=False)
    )
    options: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict, converter=values.options)

    identity_fields: ClassVar[tuple[str, ...]]
    """Settings in which different experiments differ; the others say where and how fast one runs."""

    def __attrs_post_init__(self) -> None:
        for problem in _contradictions(self):
            raise ConfigError(problem)

    @property
    def watched_probes(self) -> tuple[str, ...]:
        """The probes among what is watched."""
        return tuple(name for name in self.watch if name != GRADIENT_NORM)

    @property
    def stages(self) -> tuple[tuple[Stage, ...], ...]:
        """The staged paths, parsed."""
        return tuple(Stage.parse_path(path) for path in self.path)

    @property
    def asks_schedule(self) -> bool:
        """Whether branches leave the trunk when a schedule says so."""
        return bool(self.relax or (self.control and not self.path))

    @property
    def identity_options(self) -> dict[str, Mapping[str, Any]]:
        """Options of the components in which different experiments differ: of all but the observers and the workers."""
        watching = {name for spec in (*self.observe, self.workers) for name in (spec, spec.partition(":")[0].partition("@")[0])}
        return {name: options for name, options in self.options.items() if name not in watching}

    @property
    def weight_average(self) -> WeightAverage | None:
        """The average of the weights, parsed."""
        return None if self.average is None else WeightAverage.parse(self.average)

    @property
    def early_stopping(self) -> EarlyStopping | None:
        """What ends a segment before its epochs, parsed."""
        return None if self.stop_early is None else EarlyStopping.parse(self.stop_early)

    @property
    def idle(self) -> tuple[str, ...]:
        """What was asked for and has nothing to do, as sentences."""
        if not self.penalty or self.relax or self.path:
            return ()
        return (f"penalty {','.join(self.penalty)} adds nothing: it holds relaxed layers, and this run has none; add --relax or --path",)

    @property
    def digest(self) -> str:
        """A name for the experiment: equal for configurations that agree in :attr:`identity_fields`.

        What there was no setting or option for when runs were first named counts where it is not the default.
        """
        fields = [field for field in attrs.fields(RunConfig) if field.name in self.identity_fields]
        idle = [field.name for field in fields if field.metadata.get("later") and getattr(self, field.name) == field.default]
        record = {name: getattr(self, name) for name in self.identity_fields if name not in idle}
        silent = {self.objective} if "objective" in idle and not any(self.options.get(self.objective, {}).values()) else set()
        record["options"] = {name: given for name, given in self.identity_options.items() if name not in silent}
        return hashlib.sha256(json.dumps(record, sort_keys=True, default=str).encode()).hexdigest()[:8]

    def _repr_html_(self) -> str:
        """Every setting, and every option of its components, for a notebook; those that are not the default stand out."""
        fields = [field for field in attrs.fields(RunConfig) if field.name != "options"]
        rows = [[field.name, _in_words(getattr(self, field.name))] for field in fields]
        strong = [index for index, field in enumerate(fields) if rows[index][1] != _in_words(_default_of(field, self))]
        rows += [
            [f"{component}.{option}", _in_words(value)] for component, table in self.options.items() for option, value in table.items()
        ]
        table = Table(headings=["setting", "value"], rows=rows, texts=2, strong=strong)
        return str(Overview(title=f"RunConfig {self.digest}", tables=[table]).html())

    @property
    def directory(self) -> Path:
        """Where the run goes: as the user says, else ``runs/<data>-<model>-<digest>``, so that the same settings find their run again."""
        if self.out is not None:
            return self.out
        name = re.sub(r"[^\w.-]+", "-", f"{self.data}-{self.model}")
        return Path("runs") / f"{name}-{self.digest}"

    def learning_rate(self, *, branch: bool) -> LearningRate:
        """Learning rate of the trunk or, with ``branch``, of what comes after a switch."""
        if branch:
            return LearningRate.parse(self.branch_lr_schedule, base=self.branch_lr, epochs=self.branch_epochs)
        return LearningRate.parse(self.lr_schedule, base=self.lr, epochs=self.epochs)


RunConfig.identity_fields = tuple(field.name for field in attrs.fields(RunConfig) if field.metadata.get("identity", True))


def _contradictions(config: RunConfig) -> Iterable[str]:
    """What is wrong with the combination of settings, as sentences."""
    if "scratch" in config.control and not (config.relax or config.path):
        yield "control 'scratch' starts the relaxed network from scratch, but there is no relaxation: add one, --relax NAME"
    for name, branch in (("lr_schedule", False), ("branch_lr_schedule", True)):
        try:
            config.learning_rate(branch=branch)
        except ConfigError as error:
            yield f"{name}: {error}"
    for text, stages in zip(config.path, config.stages, strict=True):
        first = stages[0].moment
        if not first.endswith("it") and Moment.parse(first, 1).iteration > config.epochs:
            yield f"path {shown(text)} leaves the trunk at epoch {first.removesuffix('ep')}, but the trunk has only {config.epochs} epochs"
        if config.layers != ("*",) and any(stage.layers is not None for stage in stages):
            yield f"path {shown(text)} says itself which layers it relaxes; leave --layers out, or the brackets of the path"
    for setting_name, given, done in (
        ("augment", config.augment, "augmentation is applied"),
        ("penalty", config.penalty, "penalty is added"),
    ):
        names = [spec.partition(":")[0].partition("@")[0] for spec in given]
        for name in {name for name in names if names.count(name) > 1}:
            yield f"{setting_name} names {shown(name)} twice; each {done} once, so say all of it in one place"
    if config.early_stopping is not None and config.early_stopping.validates and not config.validation:
        yield (
            f"stop_early {shown(config.stop_early)} needs a part of the training set that is held out: add validation, as in "
            f"--validation 0.1, or let the training decide, 'train_loss:{config.early_stopping.patience}'"
        )
    if config.watched_probes and config.watch_every > config.epochs:
        yield f"watch_every {config.watch_every} is longer than the trunk, which has {config.epochs} epochs: nothing would be seen of it"
    if 0 not in config.noise_seeds:
        others = ",".join(map(str, config.noise_seeds))
        yield f"noise_seeds {others} leaves out 0, the order of batches that others are compared with; write 0,{others}"
    if len(config.noise_seeds) > 1 and not (config.relax or config.path or config.control):
        yield "noise_seeds has further orders of batches for what leaves the trunk, and nothing does; add --relax or --control continued"
    if config.shards > 1 and config.penalty:
        has = f"of which each of {config.shards} processes has a part"
        yield f"penalty needs the whole of each relaxed layer, {has}; leave it out, or train with shards 1"
    if config.capture == "on":
        for uncaptured, which in (
            (bool(config.penalty), "penalties, which the host computes from step to step"),
            (config.shards > 1, "networks that several processes train together"),
            (config.precision == "float64", "float64, whose learning rates fused optimizers take from the host alone"),
        ):
            if uncaptured:
                yield f"capture 'on' does not go with {which}; use capture auto, or off"
    if config.optimizer_state == "carry" and not (config.relax or config.path or config.control):
        yield "optimizer_state 'carry' needs a switch to carry it over: give relax, path or control"


def _default_of(field: attrs.Attribute[Any], config: RunConfig) -> Any:
    default: Any = field.default
    return default.factory(config) if isinstance(default, attrs.Factory) else default  # type: ignore[arg-type]


def _in_words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
