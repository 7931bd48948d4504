"""Configurations as TOML: files of the user, recipes of the package, and the resolved configuration of a run.

A file has a table ``[run]``, whose keys are the fields of :class:`~anarch_core.config.run_config.RunConfig`, and one table per component
that is to have other options than its defaults::

    [run]
    relax = ["efcn", "lcn"]
    seeds = "0-4"

    [optimizer.sgd]
    momentum = 0.9
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
import tomli_w

from anarch_core.config.run_config import RunConfig
from anarch_core.errors import ConfigError, RunError, close_matches, did_you_mean
from anarch_core.files.reading import read_text
from anarch_core.plugin.option_types import NONE_TEXT

SETTINGS: dict[str, attrs.Attribute[Any]] = {field.name: field for field in attrs.fields(RunConfig) if field.name != "options"}
"""The fields that flags and ``[run]`` set, by name."""

KINDS = {name: field.metadata["kind"] for name, field in SETTINGS.items() if field.metadata["kind"]}
"""By setting, and table of options, the kind of component it names."""

MACHINE = tuple(name for name in ("workers", "jobs", "shards", "device", "threads", "capture", "data_root") if name in SETTINGS)
"""Settings that say where and how fast a run is done, and may be others when it is gone on with."""

_RECIPES = files("anarch_core.config") / "recipes"

LONGEST = 2**20
"""Bytes of a configuration file."""


@attrs.frozen
class Source:
    """Where settings come from, and what it says.

    Attributes:
        name: what messages call it, empty for the command line.
        settings: checked values by setting.
        tables: options by component.
        kinds: for tables of a file, the kind of the component.
        foreign: whether it is a file, which may be anyone's: what it names is looked up among the installed components, never imported.
    """

    name: str
    settings: Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Any]]
    kinds: Mapping[str, str]
    foreign: bool = False

    @classmethod
    def of(
        cls,
        name: str,
        settings: Mapping[str, Any],
        tables: Mapping[str, Mapping[str, Any]] | None = None,
        kinds: Mapping[str, str] | None = None,
    ) -> Source:
        """Check names and values of settings.

        Raises:
            ConfigError: a setting is unknown, or has a value that is not allowed.
        """
        checked = {}
        for setting, value in settings.items():
            if setting not in SETTINGS:
                raise ConfigError(_placed(name, f"unknown setting {setting!r}{_hint(setting, SETTINGS)}"))
            convert: Any = SETTINGS[setting].converter
            try:
                checked[setting] = convert(value)
            except ConfigError as error:
                raise ConfigError(_placed(name, str(error))) from None
        return cls(name, checked, tables or {}, kinds or {})


def read_file(path: Path) -> Source:
    """Read a configuration file.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or has tables, keys or values that mean nothing.
    """
    try:
        text = read_text(path, at_most=LONGEST)
    except RunError as error:
        raise ConfigError(str(error)) from None
    return attrs.evolve(_source(str(path), text), foreign=True)


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in _RECIPES.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str) -> Source:
    """Read a recipe of the package.

    Raises:
        ConfigError: there is none of that name.
    """
    names = recipe_names()
    if name not in names:
        msg = f"unknown recipe {name!r}{_hint(name, names)}; a file of your own is read by --config"
        raise ConfigError(msg)
    return _source(f"recipe {name}", (_RECIPES / f"{name}.toml").read_text(encoding="utf-8"))


def to_toml(config: RunConfig) -> str:
    """A resolved configuration as TOML that resolves to the same configuration again.

    TOML has no null: settings that are None are left out, options that are None are written ``"none"``.
    """
    document: dict[str, Any] = {"run": {name: _plain(value) for name in SETTINGS if (value := getattr(config, name)) is not None}}
    for setting in KINDS:
        for spec in chosen(config, setting):
            key = options_key(config, spec)
            options = list(config.options.get(key, {}).items())
            if ":" in spec and key != spec:
                del options[:1]  # the first option is what the short form says; `tiled:4` beside `tiled` has a table of its own, whole
            if options:
                document.setdefault(setting, {})[key] = {name: NONE_TEXT if value is None else _plain(value) for name, value in options}
    return tomli_w.dumps(document)


def chosen(config: RunConfig, setting: str) -> tuple[str, ...]:
    """The components that a setting names, as the user wrote them; for relaxations also those of staged paths, for probes those watched."""
    value = getattr(config, setting)
    specs = (value,) if isinstance(value, str) else tuple(value or ())
    if setting == "relax":
        specs += tuple(stage.family for stages in config.stages for stage in stages if not stage.constrained)
    if setting == "probe":
        specs += config.watched_probes
    return tuple(dict.fromkeys(specs))


def options_key(config: RunConfig, spec: str) -> str:
    """Where :attr:`RunConfig.options` has the options of a component: under what the user wrote (``tiled:2``), else under its name."""
    return spec if spec in config.options else plain_name(spec)


def plain_name(spec: str) -> str:
    """The name in ``name@distribution:value``."""
    return spec.partition(":")[0].partition("@")[0]


def _source(name: str, text: str) -> Source:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        msg = f"{name} is not valid TOML: {error}"
        raise ConfigError(msg) from None
    except (ValueError, RecursionError) as error:
        found = "lists or tables that are nested too deeply" if isinstance(error, RecursionError) else "a number of too many digits"
        msg = f"{name} cannot be read: it holds {found}"
        raise ConfigError(msg) from None
    tables: dict[str, Mapping[str, Any]] = {}
    kinds: dict[str, str] = {}
    for table, content in document.items():
        if not isinstance(content, dict):
            where = (
                "belongs into the table [run]"
                if table in SETTINGS
                else f"is unknown{_hint(table, SETTINGS)}; settings belong into the table [run]"
            )
            raise ConfigError(_placed(name, f"{table!r} {where}"))
        if table != "run" and table not in KINDS:
            raise ConfigError(_placed(name, f"unknown table [{table}]{_hint(table, ['run', *KINDS])}"))
        if table != "run":
            for component, options in content.items():
                if not isinstance(options, dict):
                    raise ConfigError(
                        _placed(name, f"[{table}] holds tables of options, as in [{table}.NAME], but {component!r} is a value")
                    )
                tables[component], kinds[component] = options, KINDS[table]
    return Source.of(name, document.get("run", {}), tables, kinds)


def _placed(source: str, message: str) -> str:
    return f"{source}: {message}" if source else message


def _hint(name: str, known: Iterable[str]) -> str:
    known = list(known)
    return did_you_mean(close_matches(name, known)) or f" (known: {', '.join(known)})"


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
