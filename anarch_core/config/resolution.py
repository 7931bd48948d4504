"""From what was given to what is run: defaults < the data set's < a recipe < configuration files < flags, all names resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs

from anarch_core.config.files import KINDS, Source, chosen, options_key, plain_name, read_file, read_recipe
from anarch_core.config.run_config import RunConfig
from anarch_core.config.watching import with_watched
from anarch_core.errors import ConfigError, OptionError, UnknownComponentError
from anarch_core.plugin.factories import FACTORIES, as_argument, is_factory, of_this_process
from anarch_core.plugin.options import check_given, parse_spec, spec_options, to_dict
from anarch_core.plugin.records import ComponentInfo, DatasetInfo
from anarch_core.plugin.registry import Registry, get_registry

AFTER_A_SWITCH = ("branch_epochs", "branch_lr", "branch_lr_schedule", "optimizer_state", "switch")
"""Settings that change nothing in a run without relax, path or control."""


def resolve(
    flags: Mapping[str, Any],
    config_files: Sequence[Path] = (),
    recipe: str | None = None,
    registry: Registry | None = None,
) -> RunConfig:
    """The configuration of a run, complete and consistent. Nothing heavy is imported, unless a model has to be looked for in zoos.

    Options in a file for a component that is not chosen are checked and then left out, so that one file can serve several choices.
    A factory, ``package.module:name``, is code: it counts where ``flags`` name it, which are the caller's, and nowhere else.

    Args:
        flags: settings by name, and ``"options"``: options by component.
        config_files: TOML files, later ones over earlier ones.
        recipe: name of a recipe; None for the one that ``flags`` or the files name, if any.
        registry: where names are looked up, the installed plugins by default.

    Raises:
        UnknownComponentError: names that no plugin provides, all of them together.
        OptionError: an option of a component is unknown or has a value that is not allowed.
        ConfigError: a file, a setting or a combination of settings is not usable; or a file names a factory.
    """
    registry = registry or get_registry()
    convert: Any = attrs.fields(RunConfig).options.converter
    flags = {**flags, "options": convert(flags.get("options", {}))}
    stack = sources(flags, config_files, recipe, registry)
    _refuse_factories_of_files(stack, registry)
    return _resolved(flags, stack, registry)


def recorded(config_file: Path, registry: Registry | None = None) -> RunConfig:
    """The configuration that a run wrote down: a record to compare with. It may name a factory, so nothing is to be built from it.

    Raises:
        AnarchError: as for :func:`resolve`.
    """
    registry = registry or get_registry()
    return _resolved({}, sources({}, [config_file], None, registry), registry)


def _resolved(flags: Mapping[str, Any], stack: Sequence[Source], registry: Registry) -> RunConfig:
    config = RunConfig(**merged(stack))
    _check_names(config, stack, registry)
    config = watching(attrs.evolve(_spelt_out(config, registry), options=merged_options(stack, registry)), registry)
    _refuse_idle_flags(flags, config)
    return complete(config, registry)


def sources(flags: Mapping[str, Any], config_files: Sequence[Path], recipe: str | None, registry: Registry) -> list[Source]:
    """All sources of settings, lowest first.

    Raises:
        ConfigError: a file cannot be read, or a setting is unknown or has a value that is not allowed.
    """
    settings = {name: value for name, value in flags.items() if name != "options"}
    stack = [*map(read_file, config_files), Source.of("", settings, flags.get("options", {}))]
    recipe = recipe or merged(stack).get("recipe")
    if recipe is not None:
        stack = [read_recipe(recipe), *stack, Source.of("", {"recipe": recipe})]
    data = merged(stack).get("data", RunConfig().data)
    try:
        usual = recommended(data, registry)
    except UnknownComponentError:
        return stack  # reported with all other names that are unknown
    return [Source.of(f"data set {data}", usual), *stack]


def merged(stack: Iterable[Source]) -> dict[str, Any]:
    """The settings of all sources, those of later ones over those of earlier ones."""
    return {name: value for source in stack for name, value in source.settings.items()}


def complete(config: RunConfig, registry: Registry | None = None) -> RunConfig:
    """Fill in what the data set decides, and give every chosen component all of its options, checked.

    Raises:
        UnknownComponentError: a name that no plugin provides.
        OptionError: an option of a component is unknown or has a value that is not allowed.
        ConfigError: the data set has no usual model, and none was given.
    """
    registry = registry or get_registry()
    model = config.model or recommended(config.data, registry).get("model")
    if model is None:
        msg = f"data set {config.data!r} has no usual model; choose one, --model NAME ('anarch plugins list' shows them)"
        raise ConfigError(msg)
    root = config.data_root and config.data_root.expanduser().absolute()
    config = watching(_spelt_out(attrs.evolve(config, model=model, data_root=root), registry), registry)
    options: dict[str, Mapping[str, Any]] = {}
    for setting, kind in KINDS.items():
        specs = chosen(config, setting)
        for spec in specs:
            given = config.options.get(options_key(config, spec), {})
            info = _component(kind, spec, registry)
            if info is None:
                options[spec] = given
                continue
            name = plain_name(spec)
            several = sum(name == plain_name(other) for other in specs) > 1
            options[spec if several else name] = _all_options(info, spec, given, registry)
    return attrs.evolve(config, options=options)


def watching(config: RunConfig, registry: Registry) -> RunConfig:
    """With the probes that the schedule looks at among those that are watched.

    Raises:
        AnarchError: the schedule does not take its options, or looks at a probe that no plugin provides.
    """
    spec = config.switch
    info, given = registry.find("schedule", parse_spec(spec)[0]), config.options.get(options_key(config, spec), {})
    return with_watched(config, _all_options(info, spec, given, registry), registry)


def _component(kind: str, spec: str, registry: Registry) -> ComponentInfo | None:
    """The component that ``spec`` names; None for a factory of the user's, ``package.module:factory``, where the kind takes one."""
    return None if is_factory(kind, spec, registry) else registry.find(kind, parse_spec(spec)[0])


def factories(settings: Mapping[str, Any], registry: Registry) -> dict[str, str]:
    """Those of the settings whose values are functions to import, ``package.module:factory``, and no components.

    Raises:
        UnknownComponentError: a value is neither.
    """
    named = {name: settings.get(name) for name, kind in KINDS.items() if kind in FACTORIES}
    given = {name: spec for name, spec in named.items() if spec is not None}
    return {name: spec for name, spec in given.items() if _component(KINDS[name], registry.spelt_out(KINDS[name], spec), registry) is None}


def _spelt_out(config: RunConfig, registry: Registry) -> RunConfig:
    """With the model as ``torchvision:resnet18`` where it is ``resnet18``, so that a run means the same whatever is installed later."""
    return config if config.model is None else attrs.evolve(config, model=registry.spelt_out("model", config.model))


def recommended(spec: str, registry: Registry) -> Mapping[str, Any]:
    """The settings that a data set recommends.

    Raises:
        UnknownComponentError: no plugin provides it, nor is it a factory.
    """
    info = _component("dataset", spec, registry)
    return info.defaults if isinstance(info, DatasetInfo) else {}


def _check_names(config: RunConfig, stack: Sequence[Source], registry: Registry) -> None:
    """Look up every component, chosen or with a table of its own, and report all that are unknown together."""
    wanted = [("", KINDS[setting], spec) for setting in KINDS for spec in chosen(config, setting)]
    wanted += [(f"{source.name}: ", kind, component) for source in stack for component, kind in source.kinds.items()]
    unknown: dict[str, UnknownComponentError] = {}
    for place, kind, spec in wanted:
        try:
            # Tables are those of components alone.
            _component(kind, spec if place else registry.spelt_out(kind, spec), registry)
        except UnknownComponentError as error:
            unknown.setdefault(f"{place}{error}", error)
    if unknown:
        first = next(iter(unknown.values()))
        raise UnknownComponentError("; ".join(unknown), kind=first.kind, name=first.name, suggestions=first.suggestions)


def merged_options(stack: Iterable[Source], registry: Registry) -> dict[str, dict[str, Any]]:
    """Options by component, those of later sources over those of earlier ones; in files, known and of the right type."""
    options: dict[str, dict[str, Any]] = {}
    for source in stack:
        for component, table in source.tables.items():
            info = _component(source.kinds[component], component, registry) if component in source.kinds else None
            if info is not None:
                try:
                    check_given(info.options, table, name=component)
                except OptionError as error:
                    msg = f"{source.name}: {error}"
                    raise OptionError(msg) from None
            options.setdefault(component, {}).update(table)
    return options


def _all_options(info: ComponentInfo, spec: str, given: Mapping[str, Any], registry: Registry) -> dict[str, Any]:
    """All options of a component, from its short form ``"name:value"``, the given ones and its defaults."""
    name, text = parse_spec(spec)
    short = {} if text is None else spec_options(info.options, text, name=name)
    parsed = registry.parse_options(info, {**given, **short})
    if parsed != registry.parse_options(info, {**short, **given}):
        option = next(iter(short))
        msg = f"{spec!r} contradicts {option} = {given[option]!r} for {name!r}; say it once, either way"
        raise ConfigError(msg)
    return {} if parsed is None else to_dict(parsed)


def _refuse_factories_of_files(stack: Sequence[Source], registry: Registry) -> None:
    """Refuse a factory where a file, which may be anyone's, is what names it: to name it is to run it."""
    refused: dict[str, str] = {}
    for setting in (name for name, kind in KINDS.items() if kind in FACTORIES):
        source = next((source for source in reversed(stack) if setting in source.settings), None)
        if source is not None and source.foreign:
            with suppress(UnknownComponentError):  # reported with all other names that are unknown
                refused |= dict.fromkeys(factories({setting: source.settings[setting]}, registry), source.name)
    if refused:
        named = {setting: merged(stack)[setting] for setting in refused}
        what = " and ".join(f"the {setting} {spec!r}" for setting, spec in named.items())
        are = "is a function" if len(named) == 1 else "are functions"
        msg = f"{next(iter(refused.values()))}: {what} {are} to import, which only you may name, not a file; {named_again(named)}"
        raise ConfigError(msg)


def named_again(named: Mapping[str, str]) -> str:
    """How a caller names factories again, by setting, that no file's word is taken for."""
    if any(map(of_this_process, named.values())):
        return "give it again from Python: " + ", ".join(f"{setting}={as_argument(spec)}" for setting, spec in named.items())
    return "add " + " ".join(f"--{setting} {spec}" for setting, spec in named.items())


def _refuse_idle_flags(flags: Mapping[str, Any], config: RunConfig) -> None:
    """Refuse flags that would change nothing. In files they may stand, for runs that add a relaxation."""
    if flags.get("penalty") and config.idle:
        raise ConfigError(config.idle[0])
    if not (config.relax or config.path or config.control):
        for name in (*AFTER_A_SWITCH, "layers"):
            if name in flags:
                msg = f"--{name.replace('_', '-')} changes nothing in a run without relax, path or control; add one, e.g. --relax NAME"
                raise ConfigError(msg)
    if "probe_at" in flags and not config.probe:
        msg = "--probe-at changes nothing where there are no probes; add --probe NAME or leave it out"
        raise ConfigError(msg)
    if "watch_every" in flags and not config.watched_probes:
        msg = "--watch-every changes nothing where no probe is watched; add --watch NAME or leave it out"
        raise ConfigError(msg)
    if config.path and not config.relax and "switch" in flags:
        msg = "--switch changes nothing where staged paths, which say when, are the only branches; add --relax or leave it out"
        raise ConfigError(msg)
    known = {plain_name(spec) for setting in KINDS for spec in chosen(config, setting)} | {config.data, *chosen(config, "model")}
    for component in flags.get("options", {}):
        if component not in known:
            msg = f"options for {component!r}, which is not chosen; chosen: {', '.join(sorted(known))}"
            raise ConfigError(msg)
