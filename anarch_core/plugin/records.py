"""Frozen records that plugins return from hooks: plain data and import strings, so that finding a component imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal, get_args

import attrs

NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]*")
TARGET_PATTERN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

TensorRole = Literal["weight", "gradient", "square"]
"""What a tensor of an optimizer's memory moves like when weights are shared no longer: weights, gradients, or squares of gradients."""


def _valid_name(_: object, attribute: attrs.Attribute[str], value: object) -> None:
    if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
        msg = f"{attribute.name!r} must be lower-case letters, digits and hyphens, starting with a letter: {value!r}"
        raise ValueError(msg)


def _valid_target(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, str) or not TARGET_PATTERN.fullmatch(value):
        msg = f"{attribute.name!r} must be an import string like 'package.module:Name': {value!r}"
        raise ValueError(msg)


def _valid_options(_: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and not (isinstance(value, type) and attrs.has(value)):
        msg = f"{attribute.name!r} must be an attrs class or None: {value!r}"
        raise ValueError(msg)


def _valid_zoo(info: ModelInfo, attribute: attrs.Attribute[str | None], value: object) -> None:
    if value is None:
        return
    _valid_target(info, attribute, value)
    if info.options is None or not attrs.fields(info.options):
        msg = f"{attribute.name!r} needs an option class, whose first option takes the names of the zoo: {value!r}"
        raise ValueError(msg)


def _valid_texts(_: object, attribute: attrs.Attribute[Any], value: Iterable[object]) -> None:
    for text in value:
        if not isinstance(text, str):
            msg = f"{attribute.name!r} must be text, not a {type(text).__name__}"
            raise ValueError(msg)


def _valid_roles(_: object, attribute: attrs.Attribute[Any], value: Mapping[str, object]) -> None:
    for name, role in value.items():
        if role not in get_args(TensorRole):
            msg = f"{attribute.name!r} of {name!r} must be one of {', '.join(map(repr, get_args(TensorRole)))}: {role!r}"
            raise ValueError(msg)


def _strings(value: Iterable[str]) -> tuple[str, ...]:
    return tuple(value)


def read_only(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A copy that nobody can write to."""
    return MappingProxyType(dict(value))


def with_article(kind: str) -> str:
    """One component of a kind, in words: ``"a probe"``, ``"an observer"``; and ``"workers"``, of whom there are always several."""
    return kind if kind.endswith("s") else f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


@attrs.frozen(kw_only=True)
class ComponentInfo:
    """What every component says of itself before it is imported.

    Attributes:
        name: how users call it, ``[a-z][a-z0-9-]*``; one namespace for all kinds but commands and figures, which have one each.
        summary: one sentence for listings.
        target: import string ``"package.module:Name"``, imported only when the component is used.
        options: an attrs class of options (see :mod:`anarch_core.plugin.options`), or None.
        aliases: deprecated names that still work.
        references: papers or pages, for listings and reports.
    """

    kind: ClassVar[str] = "component"
    namespace: ClassVar[str] = "component"

    name: str = attrs.field(validator=_valid_name)
    summary: str = attrs.field(validator=attrs.validators.instance_of(str))
    target: str = attrs.field(validator=_valid_target)
    options: type | None = attrs.field(default=None, validator=_valid_options)
    aliases: tuple[str, ...] = attrs.field(default=(), converter=_strings, validator=_valid_texts)
    references: tuple[str, ...] = attrs.field(default=(), converter=_strings, validator=_valid_texts)


@attrs.frozen(kw_only=True)
class RelaxationInfo(ComponentInfo):
    """A relaxation; its target is a subclass of :class:`anarch_core.relaxation.base.AbstractRelaxation`.

    Attributes:
        exact: whether the relaxed network equals its parent to rounding.
        tolerance: relative error in float64 that the relaxation promises to stay under.
        lattice: whether it makes the same member of the lattice of convolutions of every smaller one, as subclasses of
            ``AbstractLatticeRelaxation`` do: of a path through such stages, the last one alone makes the network at its end.
    """

    kind: ClassVar[str] = "relaxation"
    exact: bool = True
    tolerance: float = 1e-10
    lattice: bool = False


@attrs.frozen(kw_only=True)
class ProbeInfo(ComponentInfo):
    r"""A probe; its target is a subclass of :class:`anarch_core.probe.base.AbstractProbe`.

    Attributes:
        axes: labels of scalars that compare between networks, which figure 3 of a report shows against switch time, each in a panel with a
            logarithmic axis:
            ``{"norm": r"gradient norm $|\nabla\mathcal{L}|$"}``. Words outside of ``$`` name the scalar in the caption.
    """

    kind: ClassVar[str] = "probe"
    axes: Mapping[str, str] = attrs.field(factory=dict, converter=read_only)


@attrs.frozen(kw_only=True)
class ScheduleInfo(ComponentInfo):
    """A schedule of switch times; its target is a subclass of :class:`anarch_core.schedule.AbstractSchedule`."""

    kind: ClassVar[str] = "schedule"


CONSTRAINED_NETWORK = "constrained network"
"""What a network that is relaxed is called where nothing closer is known."""


@attrs.frozen(kw_only=True)
class ModelInfo(ComponentInfo):
    """A model; its target is ``build(input_shape, classes, options) -> torch.nn.Module``, seeded by the caller.

    Attributes:
        zoo: import string of a function without arguments that gives the names of all models that the first option chooses from. Where no
            component has such a name, ``--model resnet18`` means ``--model torchvision:resnet18``. Imported only to look for a name that
            no component has; a function that lacks a package raises :class:`anarch_core.errors.MissingDependencyError`.
        called: what a report calls the network, beside what it is relaxed to: ``"CNN"`` in *the CNN continued*.
    """

    kind: ClassVar[str] = "model"
    zoo: str | None = attrs.field(default=None, validator=_valid_zoo)
    called: str = CONSTRAINED_NETWORK


@attrs.frozen(kw_only=True)
class DatasetInfo(ComponentInfo):
    """A data set; its target is ``load(root, options) -> anarch_core.data.TensorData`` (``root`` may be None).

    Attributes:
        defaults: run settings that suit this data (``{"model": "cnn1d", "batch_size": 100}``), used where neither a recipe, a
            configuration file nor a flag says otherwise.
    """

    kind: ClassVar[str] = "dataset"
    defaults: Mapping[str, Any] = attrs.field(factory=dict, converter=read_only)


@attrs.frozen(kw_only=True)
class OptimizerInfo(ComponentInfo):
    """An optimizer; its target is ``build(parameters, lr, options) -> torch.optim.Optimizer``.

    ``parameters`` is the list of ``(name, parameter)`` pairs that require gradients. The learning rate of a run is written into every
    parameter group before a step, times the group's ``"lr_scale"`` where it has one.

    Attributes:
        takes_model: the network is passed too, ``build(parameters, lr, options, model)``, for an optimizer that treats relaxed layers
            (see :func:`anarch_core.layers.base.relaxed_layers`) in a way of their own.
        roles: by key of its state, what a tensor shaped as its parameter moves like when a run carries the state over a switch:
            ``"weight"`` (an average of the weights), ``"gradient"`` (a sum or mean of gradients) or ``"square"`` (of their squares). A
            layer whose state has such a tensor without a role starts with none.
        elementwise: whether a step of a number depends on that number, its gradient and what is remembered of both alone, so that
            processes which each hold a part of a parameter take it as one would that holds all. New in 1.3.
    """

    kind: ClassVar[str] = "optimizer"
    takes_model: bool = False
    elementwise: bool = False
    roles: Mapping[str, TensorRole] = attrs.field(factory=dict, converter=read_only, validator=_valid_roles)


@attrs.frozen(kw_only=True)
class AugmentationInfo(ComponentInfo):
    """An augmentation; its target is a subclass of :class:`anarch_core.augmentation.AbstractAugmentation`."""

    kind: ClassVar[str] = "augmentation"


@attrs.frozen(kw_only=True)
class ObjectiveInfo(ComponentInfo):
    """An objective; its target is a subclass of :class:`anarch_core.objective.AbstractObjective`. New in 1.1."""

    kind: ClassVar[str] = "objective"


@attrs.frozen(kw_only=True)
class PenaltyInfo(ComponentInfo):
    """A penalty; its target is a subclass of :class:`anarch_core.training.AbstractPenalty`. New in 1.3."""

    kind: ClassVar[str] = "penalty"


@attrs.frozen(kw_only=True)
class FigureInfo(ComponentInfo):
    """A figure of reports; its target is a subclass of :class:`anarch_core.report.AbstractFigure`, built without arguments.

    Figures have names of their own, which are those of their files, and no options.

    Attributes:
        title: its heading on the page.
        needs: probes whose results it shows; where one of them did not run, the page says so in the figure's stead.
        order: its place on the page, smaller ones first; anarch's own have the numbers of d'Ascoli et al. (2019), 2 to 12.
    """

    kind: ClassVar[str] = "figure"
    namespace: ClassVar[str] = "figure"

    title: str = attrs.field(validator=attrs.validators.instance_of(str))
    needs: tuple[str, ...] = attrs.field(default=(), converter=_strings)
    order: float = 100.0
    options: type | None = attrs.field(default=None, init=False)


@attrs.frozen(kw_only=True)
class ObserverInfo(ComponentInfo):
    """An observer of runs; its target is a subclass of :class:`anarch_core.observer.AbstractObserver`."""

    kind: ClassVar[str] = "observer"


@attrs.frozen(kw_only=True)
class WorkersInfo(ComponentInfo):
    """Workers; the target is a subclass of :class:`anarch_core.workers.AbstractWorkers`. New in 1.2.

    Attributes:
        remote: whether they train on other machines. Then the run asks nothing of the devices of its own, and loads the data into its
            memory; each worker finds the device that the user names, and checks that there is room.
        together: whether they have several processes train one segment together, as many as the run says (``--shards``). New in 1.3.
    """

    kind: ClassVar[str] = "workers"
    remote: bool = False
    together: bool = False


@attrs.frozen(kw_only=True)
class CommandInfo(ComponentInfo):
    """A subcommand of ``anarch``; its target is a ``click.Command``, imported only when it is called."""

    kind: ClassVar[str] = "command"
    namespace: ClassVar[str] = "command"
