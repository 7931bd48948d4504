"""``anarch plugins``: what is installed, what is wrong with it, and a start for one of your own."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import click

from anarch_core.errors import UnknownComponentError, close_matches, did_you_mean
from anarch_core.plugin.diagnosis import Problem, plugin_problems, registry_problems
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.options import OptionField, option_fields
from anarch_core.plugin.records import ComponentInfo
from anarch_core.plugin.registry import KINDS, Registry, get_registry
from anarch_core.scaffold import PREFIX, SCAFFOLDED, create


@click.group("plugins", no_args_is_help=True)
def command() -> None:
    """List the installed plugins, find out what is wrong with one, or start your own."""


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Write everything that is known, for programs.")
def list_plugins(as_json: bool) -> None:
    """List the components that are installed, by kind."""
    registry = get_registry()
    if as_json:
        click.echo(json.dumps([_plugin_json(plugin) for plugin in registry.plugins], indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("Kind", "Name", "What it is", "From", box=None, pad_edge=False, header_style="bold")
    for kind in KINDS:
        for info in registry.infos(kind):
            table.add_row(kind, info.name, info.summary, " ".join(registry.owner(info)))
    # Where the output is no terminal there is no width to fit.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for plugin in registry.plugins:
        if plugin.status is not Status.LOADED:
            console.print(f"\nPlugin {plugin.name} ({plugin.owner}) is {plugin.status}: {plugin.error}", markup=False, soft_wrap=True)
    if registry.failures():
        console.print("\n'anarch plugins doctor' says more.")


@command.command("doctor")
@click.argument("name", required=False)
@click.pass_context
def doctor(ctx: click.Context, name: str | None) -> None:
    """Check all plugins, or the plugin NAME together with everything it would import; exit with 1 if something is wrong."""
    registry = get_registry()
    chosen = registry.plugins if name is None else _named(registry, name)
    wrong = 0
    for plugin in chosen:
        problems = plugin_problems(registry, plugin, targets=name is not None)
        wrong += len(problems)
        if name is not None or problems:
            _show_plugin(plugin)
        _show_problems(problems)
    if name is None:
        problems = registry_problems(registry)
        wrong += len(problems)
        _show_problems(problems)
        slowest = max(registry.plugins, key=lambda plugin: plugin.seconds, default=None)
        total = sum(plugin.seconds for plugin in registry.plugins)
        times = f"loaded in {1000 * total:.0f} ms" + (f" (slowest: {slowest.name}, {1000 * slowest.seconds:.0f} ms)" if slowest else "")
        click.echo(f"{len(registry.plugins)} plugins, {times}; {wrong or 'no'} problem{'' if wrong == 1 else 's'}")
    ctx.exit(1 if wrong else 0)


@command.command("new")
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice(SCAFFOLDED), help="What the plugin adds.")
@click.option(
    "--dir",
    "folder",
    default=".",
    type=click.Path(file_okay=False, path_type=Path),
    show_default="here",
    help="Folder to make the distribution's folder in.",
)
def new(name: str, kind: str, folder: Path) -> None:
    """Write a complete distribution anarch-NAME: package, options, tests that pass; a start for a plugin of your own."""
    root = create(name, kind, folder, registry=get_registry())
    steps = [f"cd {root}", "pip install -e '.[test]'", f"anarch plugins doctor {root.name.removeprefix(PREFIX)}", "pytest"]
    click.echo(f"Wrote {root}. Try it:\n\n" + textwrap.indent("\n".join(steps), "  "))


def _named(registry: Registry, name: str) -> list[PluginRecord]:
    """The plugins of a name, or those that have a component of the name."""
    named = [plugin for plugin in registry.plugins if plugin.name == name]
    named = named or [plugin for plugin in registry.plugins if any(info.name == name for info in plugin.components)]
    if not named:
        known = [plugin.name for plugin in registry.plugins]
        close = close_matches(name, known)
        msg = f"no plugin {name!r}" + (did_you_mean(close) or f"; installed: {', '.join(known)}")
        raise UnknownComponentError(msg, kind="plugin", name=name, suggestions=close)
    return named


def _show_plugin(plugin: PluginRecord) -> None:
    torch = {True: ", imports torch", False: "", None: ""}[plugin.imports_torch]
    click.echo(f"{plugin.name} ({plugin.module}, {plugin.owner}): {plugin.status} in {1000 * plugin.seconds:.0f} ms{torch}")
    for info in plugin.components:
        click.echo(f"  {info.kind} {info.name}: {info.summary}")


def _show_problems(problems: list[Problem]) -> None:
    for problem in problems:
        click.echo(f"  ! {problem.text}\n    {problem.advice}")
        if problem.traceback:
            click.echo(textwrap.indent(problem.traceback, "    | ").rstrip())


def _plugin_json(plugin: PluginRecord) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "module": plugin.module,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "status": plugin.status.value,
        "error": plugin.error,
        "seconds": round(plugin.seconds, 6),
        "imports_torch": plugin.imports_torch,
        "components": [_component_json(info) for info in plugin.components],
    }


def _component_json(info: ComponentInfo) -> dict[str, Any]:
    return {
        "kind": info.kind,
        "name": info.name,
        "summary": info.summary,
        "target": info.target,
        "aliases": list(info.aliases),
        "references": list(info.references),
        "options": [_option_json(field) for field in option_fields(info.options)] if info.options is not None else [],
    }


def _option_json(field: OptionField) -> dict[str, Any]:
    described: dict[str, Any] = {"name": field.name, "help": field.help, "type": field.type.metavar, "required": field.required}
    return described if field.required else {**described, "default": field.type.dump(field.default)}
