"""``anarch plugins``: what is installed, what is wrong with it, and a start for one of your own."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from anarch_core.cli.completion import offer_plugins
from anarch_core.errors import UnknownComponentError, close_matches, did_you_mean, legible, plain
from anarch_core.plugin.diagnosis import Problem, plugin_problems, registry_problems
from anarch_core.plugin.discovery import PluginRecord, Status, installed
from anarch_core.plugin.examination import Examination, examined
from anarch_core.plugin.hooks import KINDS
from anarch_core.plugin.options import OptionField, option_fields
from anarch_core.plugin.records import ComponentInfo
from anarch_core.plugin.registry import Registry, builtin_by_user, disabled_by_user, get_registry
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
            table.add_row(kind, info.name, plain(info.summary), " ".join(registry.owner(info)))
    # Where the output is no terminal there is no width to fit; what authors of plugins write is no markup.
    console = Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for plugin in registry.plugins:
        if plugin.status is not Status.LOADED:
            console.print(f"\nPlugin {plugin.name} ({plugin.owner}) is {plugin.status}: {plugin.error}", soft_wrap=True)
    if registry.failures():
        console.print("\n'anarch plugins doctor' says more.")


@command.command("doctor")
@click.argument("name", required=False, shell_complete=offer_plugins)
@click.pass_context
def doctor(ctx: click.Context, name: str | None) -> None:
    """Check all plugins, or the plugin NAME; exit with 1 if something is wrong.

    Plugins that are not anarch's own are imported each in a process of its own, with everything that they name; so is NAME's.
    """
    chosen = _examined(name)
    for found in chosen:
        if name is not None or found.problems:
            _show_plugin(found)
        _show_problems(found.problems)
    wrong = sum(len(found.problems) for found in chosen)
    if name is None:
        harmful = [f"{found.record.name}@{found.record.distribution}" for found in chosen if found.harmful]
        problems = registry_problems(Registry.load(disabled=[*disabled_by_user(), *harmful], strict=False))
        wrong += len(problems)
        _show_problems(problems)
        records = [found.record for found in chosen]
        slowest = max(records, key=lambda plugin: plugin.seconds, default=None)
        total = sum(plugin.seconds for plugin in records)
        times = f"loaded in {1000 * total:.0f} ms" + (f" (slowest: {slowest.name}, {1000 * slowest.seconds:.0f} ms)" if slowest else "")
        click.echo(f"{len(records)} plugins, {times}; {wrong or 'no'} problem{'' if wrong == 1 else 's'}")
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


def _examined(name: str | None) -> list[Examination]:
    """All plugins, those of a name, or those that have a component of the name; others' than anarch's own each in its own process."""
    own = Registry.load(disabled=(), builtin_only=True, strict=False)
    known = [record for _, record in installed(disabled=disabled_by_user(), builtin_only=builtin_by_user())]
    named = [record for record in known if record.name == name]
    found = []
    for record in named or known:
        if record.builtin and record.status is not Status.DISABLED:
            [loaded] = [plugin for plugin in own.plugins if (plugin.name, plugin.owner) == (record.name, record.owner)]
            found.append(Examination.of(loaded, plugin_problems(own, loaded, targets=bool(named))))
        elif record.status is Status.LOADED or named:
            found.append(examined(record))
        else:
            found.append(Examination.of(record, plugin_problems(own, record)))
    if name is None or named:
        return found
    found = [one for one in found if any(name == component for _, component, _ in one.components)]
    if not found:
        names = [record.name for record in known]
        close = close_matches(name, names)
        msg = f"no plugin {name!r}" + (did_you_mean(close) or f"; installed: {', '.join(names)}")
        raise UnknownComponentError(msg, kind="plugin", name=name, suggestions=close)
    return [attrs.evolve(one, problems=plugin_problems(own, one.record, targets=True)) if one.record.builtin else one for one in found]


def _show_plugin(found: Examination) -> None:
    plugin = found.record
    torch = {True: ", imports torch", False: "", None: ""}[plugin.imports_torch]
    click.echo(f"{plugin.name} ({plugin.module}, {plugin.owner}): {plugin.status} in {1000 * plugin.seconds:.0f} ms{torch}")
    for kind, name, summary in found.components:
        click.echo(f"  {kind} {name}: {plain(summary)}")


def _show_problems(problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(f"  ! {plain(problem.text, 1000)}\n    {plain(problem.advice)}")
        if problem.traceback:
            click.echo(textwrap.indent(legible(problem.traceback), "    | ").rstrip())


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
        "summary": plain(info.summary),
        "target": info.target,
        "aliases": list(info.aliases),
        "references": list(info.references),
        "options": [_option_json(field) for field in option_fields(info.options)] if info.options is not None else [],
    }


def _option_json(field: OptionField) -> dict[str, Any]:
    described: dict[str, Any] = {"name": field.name, "help": field.help, "type": field.type.metavar, "required": field.required}
    return described if field.required else {**described, "default": field.type.dump(field.default)}
