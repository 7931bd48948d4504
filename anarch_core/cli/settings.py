"""The flags of ``run`` and ``plan``: one for each setting, those of the chosen components, and where to read settings from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import attrs
import click
from click.shell_completion import CompletionItem

from anarch_core.bounds import ordinary_digits
from anarch_core.cli.completion import component_items, offered
from anarch_core.cli.components import ComponentCommand, component_options
from anarch_core.config.files import KINDS, SETTINGS, chosen, recipe_names
from anarch_core.config.resolution import merged, merged_options, resolve, sources, watching
from anarch_core.config.run_config import RunConfig
from anarch_core.errors import AnarchError, ConfigError
from anarch_core.plugin.registry import get_registry

_EPILOG = (
    "Every setting can also stand in a TOML file (--config), in the table [run] under its name with underscores; flags win over files, "
    "later files over earlier ones, files over a recipe, and a recipe over what the data set recommends. 'anarch plan' shows what results."
)


class _SettingType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Reads text as a setting does, so that a wrong value is a usage error."""

    def __init__(self, field: attrs.Attribute[Any], annotation: Any) -> None:
        self.field, self.annotation = field, annotation
        self.several = get_origin(annotation) is tuple
        self.numeric = bool({int, float} & {annotation, *get_args(annotation)}) and not self.several
        self.name = field.metadata["metavar"] or "|".join(get_args(annotation))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Components, recipes, folders, or the texts it may be."""
        kind = "probe" if self.field.name == "watch" else self.field.metadata["kind"]
        if kind:
            return component_items(kind, incomplete, several=self.several)
        if Path in get_args(self.annotation):
            return [CompletionItem(incomplete, type="dir")]
        return offered(recipe_names() if self.field.name == "recipe" else _texts(self.annotation), incomplete, several=self.several)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value as :class:`RunConfig` takes it."""
        given = _number(value) if self.numeric else value
        check: Any = self.field.converter
        try:
            check(given)
        except ConfigError as error:
            self.fail(str(error).removeprefix(f"{self.field.name}: "), param, ctx)
        return given


class RunCommand(ComponentCommand):
    """A command that takes every setting of a run and calls ``callback(config=..., **its own options)``."""

    def __init__(self, *, params: Sequence[click.Parameter] = (), callback: Callable[..., None], **kwargs: Any) -> None:
        super().__init__(
            # Relaxations on a path are chosen too, whatever --relax says, and probes that are watched; these are no parameters, only second
            # names for them.
            components={**KINDS, "stages": "relaxation", "watched": "probe"},
            choose=_choices,
            params=[*setting_options(SETTINGS), _config_option(), *params],
            callback=self._configured(callback),
            epilog=_EPILOG,
            **kwargs,
        )

    def _configured(self, callback: Callable[..., None]) -> Callable[..., None]:
        def call(config: tuple[Path, ...], **values: Any) -> None:
            flags = {name: values.pop(name) for name in SETTINGS}
            given = {name: value for name, value in flags.items() if value not in (None, ())}
            options = component_options(click.get_current_context())
            callback(config=resolve({**given, "options": options}, config), **values)

        return call


def _choices(given: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """The components that files, a recipe and defaults choose, beside the flags ``given`` as text."""
    registry = get_registry()
    flags = {name: given[name] for name in (*KINDS, "path", "watch", "recipe") if name in given}
    stack = sources(flags, [Path(file) for file in given.get("config", ())], None, registry)
    settings = merged(stack)
    config = RunConfig(**{name: settings[name] for name in (*KINDS, "path", "watch") if name in settings}, control="none")
    with contextlib.suppress(AnarchError):  # told when all is read
        config = attrs.evolve(watching(attrs.evolve(config, options=merged_options(stack, registry)), registry), options={})
    paths, watched = attrs.evolve(config, relax=()), attrs.evolve(config, probe=())
    return {
        **{setting: chosen(config, setting) for setting in KINDS},
        "stages": chosen(paths, "relax"),
        "watched": chosen(watched, "probe"),
    }


def setting_options(names: Iterable[str], *, defaults: bool = True) -> list[click.Option]:
    """The flags of settings, whose help says what their ``defaults`` are, if they count."""
    annotations = get_type_hints(RunConfig)
    options = []
    for name in names:
        field = SETTINGS[name]
        type_ = _SettingType(field, annotations[name])
        help = field.metadata["help"]
        if name == "recipe":
            help += f" [{', '.join(recipe_names())}]"
        else:
            help += _bracketed(field, default=defaults)
        multiple = get_origin(annotations[name]) is tuple
        flag = f"--{name.replace('_', '-')}"
        options.append(click.Option([name, flag], type=type_, metavar=type_.name, multiple=multiple, default=None, help=help))
    return options


def _texts(annotation: Any) -> list[str]:
    """What a ``Literal`` may be, or the items of a list of such."""
    inner = get_args(annotation)
    return [text for part in inner for text in ([part] if isinstance(part, str) else _texts(part))]


def _bracketed(field: attrs.Attribute[Any], *, default: bool) -> str:
    """The default of a setting, if it counts, and its range, as help shows them."""
    notes = []
    if default and isinstance(field.default, (str, int, float)):
        notes.append(f"default: {field.default:g}" if isinstance(field.default, float) else f"default: {field.default}")
    if field.metadata["range"] is not None:
        notes.append(str(field.metadata["range"]))
    return f"  [{'; '.join(notes)}]" if notes else ""


def _config_option() -> click.Option:
    return click.Option(
        ["config", "--config"],
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        help="TOML file of settings; may be repeated.",
    )


def _number(text: Any) -> Any:
    for number in (int, float) if isinstance(text, str) and ordinary_digits(text) else ():
        try:
            return number(text)
        except ValueError:
            continue
    return text
