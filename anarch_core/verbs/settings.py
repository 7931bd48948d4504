"""Settings of a run as keyword arguments: they mean what the flags of ``anarch run`` mean, and editors complete them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

import attrs

from anarch_core.bounds import shown
from anarch_core.config import values
from anarch_core.config.resolution import complete, recommended, resolve
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError, warn
from anarch_core.verbs.given import named

if TYPE_CHECKING:
    from anarch_core.plugin.registry import Registry

Names = str | Sequence[str]
"""``"efcn,lcn"`` or ``["efcn", "lcn"]``."""


class Settings(TypedDict, total=False):
    """The settings of a run, each as :class:`~anarch_core.config.run_config.RunConfig` documents it; a test keeps the two in step."""

    data: str | Callable[..., Any] | Any
    model: str | Callable[..., Any] | None
    objective: str
    relax: Names
    probe: Names
    probe_at: str | int | Sequence[str | int]
    layers: Names
    switch: str
    path: Names
    watch: Names
    watch_every: int
    epochs: int
    branch_epochs: int
    seeds: str | int | Sequence[int]
    noise_seeds: str | int | Sequence[int]
    control: Names
    optimizer: str
    optimizer_state: values.OptimizerState
    lr: float
    branch_lr: float
    lr_schedule: str
    branch_lr_schedule: str
    batch_size: int
    augment: Names
    penalty: Names
    clip_norm: float | None
    average: str | None
    stop_early: str | int | None
    precision: values.Precision
    data_root: Path | str | None
    data_on: values.DataPlace
    train_limit: int | None
    validation: float
    device: Names
    workers: str
    jobs: int | None
    shards: int
    threads: int | None
    capture: values.Capture
    observe: Names
    out: Path | str | None
    recipe: str | None
    options: Mapping[str, Mapping[str, Any]]


Config = RunConfig | Path | str | Sequence[Path | str]
"""A complete configuration, or the files that ``--config`` names."""


def resolved(config: Config, settings: Mapping[str, Any], registry: Registry) -> RunConfig:
    """The configuration that is meant: of a :class:`RunConfig` as it stands, else as the command line makes it of files and flags.

    Args:
        config: a configuration, or files of settings, later ones over earlier ones.
        settings: by name, over those of files; beside a configuration ``out`` alone.
        registry: where components are looked up.

    Raises:
        AnarchError: as for :func:`~anarch_core.config.resolution.resolve`; or settings beside a configuration.
    """
    if not isinstance(config, RunConfig):
        return resolve(
            named({name: value if name == "data" else _plain(value) for name, value in settings.items()}), _files(config), registry=registry
        )
    if beside := [name for name in settings if name != "out"]:
        given = ", ".join(f"{name}=..." for name in beside)
        msg = f"a RunConfig is complete, and {given} would change it: write attrs.evolve(config, {given}), or give settings alone"
        raise ConfigError(msg)
    _warn_of_passed_over(config, registry)
    return attrs.evolve(complete(config, registry), **settings)


def _files(config: object) -> list[Path]:
    files = [config] if isinstance(config, (str, Path)) else config
    if not isinstance(files, (list, tuple)) or not all(isinstance(file, (str, Path)) for file in files):
        how = "settings are keywords, as in run(epochs=10) or run(**settings)"
        msg = f"expected files of settings or a RunConfig, got {shown(config)}; {how}"
        raise ConfigError(msg)
    return [Path(file) for file in files]


def _plain(value: Any) -> Any:
    """Numbers of NumPy or PyTorch, and ranges, as settings take them."""
    if isinstance(value, range):
        return list(value)
    return value.tolist() if hasattr(value, "__array__") and hasattr(value, "tolist") else value


def _warn_of_passed_over(config: RunConfig, registry: Registry) -> None:
    """Warn of a configuration that was made by hand and passes over what its data set recommends."""
    if config.options:
        return  # resolved, or by somebody who went into the details
    fields = attrs.fields_dict(RunConfig)
    others = {
        name: value
        for name, value in recommended(config.data, registry).items()
        if name != "model" and getattr(config, name) == fields[name].default != value
    }
    if others:
        taken = ", ".join(f"{name} = {getattr(config, name)}" for name in others)
        better = ", ".join(f"{name} = {value}" for name, value in others.items())
        msg = (
            f"a RunConfig is run as it stands, with {taken}, though the data set {config.data} recommends {better}; settings as keywords, "
            "or anarch_core.config.resolve({...}), follow the recommendations as the command line does"
        )
        warn(msg, UserWarning)


Verb = TypeVar("Verb", bound=Callable[..., Any])


def takes_settings(verb: Verb) -> Verb:
    """Name every setting in the signature and the documentation of a function that takes them as ``**settings``."""
    signature = inspect.signature(verb)
    fields = [field for field in attrs.fields(RunConfig) if field.name in Settings.__annotations__]
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
    keywords = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=_default(field), annotation=field.type) for field in fields
    ]
    verb.__signature__ = signature.replace(parameters=[*own, *keywords])  # type: ignore[attr-defined]
    lines = [f"    {field.name}: {_documented(field)}" for field in fields]
    verb.__doc__ = "\n".join([(verb.__doc__ or "").rstrip(), "", "Settings:", *lines, ""])
    return verb


class _ByData:
    """Stands in a signature for a default that the data set, a recipe or a file may decide."""

    def __repr__(self) -> str:
        return "..."


_BY_DATA = _ByData()


def _default(field: attrs.Attribute[Any]) -> Any:
    return field.default if isinstance(field.default, (str, int, float, tuple, type(None))) else _BY_DATA


def _documented(field: attrs.Attribute[Any]) -> str:
    help: str = field.metadata.get("help", 'Options by component: {"sgd": {"momentum": 0.9}}.')
    return help
