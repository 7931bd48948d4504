"""Options of components on the command line: ``anarch run --relax efcn`` also takes ``--efcn-...``.

Which options exist depends on which components are chosen, so :class:`ComponentCommand` reads its arguments twice: once for the choice,
and then with the options of the chosen components added.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from anarch_core.cli.completion import offered
from anarch_core.errors import AnarchError, ComponentConflictError, plain
from anarch_core.plugin.factories import is_factory
from anarch_core.plugin.option_types import BoolType, OptionType
from anarch_core.plugin.options import OptionField, option_fields, parse_spec
from anarch_core.plugin.records import ComponentInfo
from anarch_core.plugin.registry import get_registry

_PARAMETERS = f"{__name__}.parameters"
_VALUES = f"{__name__}.values"

Choose = Callable[[Mapping[str, Any]], Mapping[str, Sequence[str]]]


def split_names(values: Iterable[str]) -> list[str]:
    """The items of an option that is given as a comma list, repeated, or both."""
    return [item.strip() for value in values for item in value.split(",") if item.strip()]


def component_options(ctx: click.Context) -> dict[str, dict[str, Any]]:
    """The options of components that the command line gave, by component and field, JSON-ready; nothing for those it did not."""
    values: dict[str, dict[str, Any]] = ctx.meta.setdefault(_VALUES, {})
    return values


class ComponentOption(click.Option):
    """The option ``--<component>-<field>``; its value goes to :func:`component_options`, not to the command's arguments.

    Args:
        info: the component.
        field: its option.
    """

    def __init__(self, info: ComponentInfo, field: OptionField) -> None:
        self.info = info
        self.field = field
        stem = f"{info.name}-{field.name.replace('_', '-')}"
        default = "required" if field.required else f"default: {_text(field)}"
        super().__init__(
            [f"{info.name.replace('-', '_')}__{field.name}", f"--{stem}/--no-{stem}" if isinstance(field.type, BoolType) else f"--{stem}"],
            type=None if isinstance(field.type, BoolType) else _FieldType(field.type),
            metavar=None if isinstance(field.type, BoolType) else field.type.metavar,
            default=None,
            expose_value=False,
            callback=self._record,
            help=f"{plain(field.help)}  [{plain(default)}{'' if field.range is None else f'; {field.range}'}]",
        )

    def _record(self, ctx: click.Context, _: click.Parameter, value: Any) -> None:
        # None may have been given, as "none".
        if self.name is not None and ctx.get_parameter_source(self.name) is not ParameterSource.DEFAULT:
            component_options(ctx).setdefault(self.info.name, {})[self.field.name] = self.field.type.dump(value)


class ComponentCommand(click.Command):
    """A command that takes the options of the components it is told to use.

    Args:
        components: kind of component by the name of the parameter that chooses it, e.g. ``{"relax": "relaxation"}``. A parameter with
            ``multiple=True`` holds comma lists, any other one name.
        choose: what is chosen where the command line says nothing (by a configuration file, a recipe, a default): called with the
            command's own parameters that were given, as text, it returns specs by parameter name. Parameters that were given are ignored.
    """

    def __init__(self, *args: Any, components: Mapping[str, str], choose: Choose | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.components = components
        self.choose = choose

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own parameters, then those of the chosen components."""
        return [*super().get_params(ctx), *ctx.meta.get(_PARAMETERS, ())]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Find out what is chosen, add its options, and parse."""
        try:
            chosen = self._chosen(ctx, args)
            ctx.meta[_PARAMETERS] = self._parameters(ctx, chosen)
        except AnarchError:
            # Completing a line that is not finished must not fail.
            if not ctx.resilient_parsing:
                raise
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            self._explain(ctx, error.option_name)
            raise

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's own options, then a section for each component."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            title = f"Options of {parameter.info.kind} {parameter.info.name}" if isinstance(parameter, ComponentOption) else "Options"
            row = parameter.get_help_record(ctx)
            if row is not None and not isinstance(parameter, click.Argument):
                sections.setdefault(title, []).append(row)
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def _chosen(self, ctx: click.Context, args: list[str]) -> list[ComponentInfo]:
        given = self._scan(ctx, args)
        specs = {name: list(values) for name, values in self.choose(given).items()} if self.choose is not None else {}
        for name in self.components.keys() & given.keys():
            specs[name] = split_names(given[name]) if isinstance(given[name], list) else [given[name]]
        registry = get_registry()
        wanted = []
        for parameter, kind in self.components.items():
            for spec in specs.get(parameter, ()):
                if not is_factory(kind, spec, registry):
                    wanted.append((kind, parse_spec(spec)[0]))
        return registry.find_all(list(dict.fromkeys(wanted)))

    def _explain(self, ctx: click.Context, flag: str) -> None:
        """Fail with a better message, if the option is one of a component that is not chosen."""
        chosen = {parameter.info.name for parameter in ctx.meta[_PARAMETERS]}
        for parameter, kind in self.components.items():
            for name in get_registry().names(kind):
                if flag.startswith(f"--{name}-") and name not in chosen:
                    choice = parameter.replace("_", "-")
                    ctx.fail(f"{flag} is an option of {kind} {name!r}, which is not chosen; add '--{choice} {name}' or leave it out")

    def _scan(self, ctx: click.Context, args: list[str]) -> dict[str, Any]:
        """The command's own parameters that are given, as text; options it does not know are passed over."""
        before = ctx.ignore_unknown_options, ctx.allow_interspersed_args
        ctx.ignore_unknown_options, ctx.allow_interspersed_args = True, True
        try:
            values, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        except click.UsageError:
            # The second reading tells the user.
            return {}
        finally:
            ctx.ignore_unknown_options, ctx.allow_interspersed_args = before
        return {name: value for name, value in values.items() if isinstance(value, str) or (isinstance(value, list) and value)}

    def _parameters(self, ctx: click.Context, chosen: Sequence[ComponentInfo]) -> list[ComponentOption]:
        own = super().get_params(ctx)
        taken = {flag: f"{self.name!r} itself" for parameter in own for flag in (*parameter.opts, *parameter.secondary_opts)}
        parameters = []
        for info in chosen:
            for field in option_fields(info.options) if info.options is not None else ():
                option = ComponentOption(info, field)
                for flag in (*option.opts, *option.secondary_opts):
                    if flag in taken:
                        msg = f"{info.kind} {info.name!r} cannot be used here: its option {flag} is also one of {taken[flag]}"
                        raise ComponentConflictError(msg)
                    taken[flag] = f"{info.kind} {info.name!r}"
                parameters.append(option)
        return parameters


class _FieldType(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """Reads an option's text as its field's type does."""

    def __init__(self, type: OptionType) -> None:
        self.name = type.metavar
        self.field_type = type

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The texts that the placeholder of the help spells out."""
        return offered([choice for choice in self.name.split("|") if not choice.isupper()], incomplete)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value is None or not isinstance(value, str):
            return value
        try:
            return self.field_type.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _text(field: OptionField) -> str:
    value = field.type.dump(field.default)
    if isinstance(value, list):
        return ",".join(map(str, value)) or "empty"
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
