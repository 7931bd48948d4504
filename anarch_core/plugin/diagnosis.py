"""What is wrong with the installed plugins, and what to do about it."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import attrs

from anarch_core.errors import AnarchError
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.registry import Registry, disabled_by_user


@attrs.frozen
class Problem:
    """Something that is wrong with a plugin.

    Attributes:
        text: what, in one line.
        advice: what to do, in one line.
        traceback: of the exception behind it; empty without one.
    """

    text: str
    advice: str
    traceback: str = ""


def plugin_problems(
    registry: Registry, plugin: PluginRecord, *, targets: bool = False, before: Callable[[str], None] = lambda what: None
) -> list[Problem]:
    """What is wrong with one plugin; nothing for one that is disabled.

    Args:
        registry: all plugins.
        plugin: one of them.
        targets: also import what its components name, which takes seconds where it imports torch.
        before: told what is about to happen, as the end of a sentence that begins with "when".
    """
    if plugin.status is Status.DISABLED:
        return []
    if plugin.status is not Status.LOADED:
        return [Problem(f"{plugin.status}: {plugin.error}", _advice(plugin), plugin.traceback)]
    problems = []
    if plugin.imports_torch:
        advice = "import torch in the module that the components' targets name, and nowhere else"
        problems.append(Problem("imports torch when it is loaded, which slows every command down by seconds", advice))
    if not plugin.components:
        problems.append(Problem("registers no component", "return at least one record from a function marked with @hookimpl"))
    if targets:
        for info in plugin.components:
            before(f"{info.target!r} is imported, the target of {info.kind} {info.name!r}")
            try:
                registry.target(info)
                registry.zoo(info)
            except AnarchError as error:
                advice = f"correct the record, or update {plugin.distribution} and what it needs"
                cause = error.__cause__
                problems.append(Problem(str(error), advice, "".join(traceback.format_exception(cause)) if cause else ""))
    return problems


def registry_problems(registry: Registry) -> list[Problem]:
    """What is wrong between plugins, and with the settings that choose them."""
    problems = []
    for name, plugins in registry.clashes().items():
        owners = " and ".join(f"{plugin.name!r} ({plugin.owner})" for plugin in plugins)
        advice = f"write '{name}@{plugins[-1].distribution}', or disable one with ANARCH_DISABLE_PLUGINS={plugins[-1].name}"
        problems.append(Problem(f"the name {name!r} is used by {owners}", advice))
    for name, plugins in registry.clashes("figure").items():
        owners = " and ".join(f"{plugin.name!r} ({plugin.owner})" for plugin in plugins)
        advice = f"a report draws the first alone; disable one with ANARCH_DISABLE_PLUGINS={plugins[-1].name}, or tell its author"
        problems.append(Problem(f"the figure {name!r} is drawn by {owners}", advice))
    for entry in disabled_by_user():
        if not any(plugin.name == entry.strip().partition("@")[0] for plugin in registry.plugins):
            known = ", ".join(plugin.name for plugin in registry.plugins)
            problems.append(Problem(f"ANARCH_DISABLE_PLUGINS names {entry.strip()!r}, which is not installed", f"installed: {known}"))
    return problems


def _advice(plugin: PluginRecord) -> str:
    if plugin.status is not Status.BROKEN:
        return f"or uninstall {plugin.distribution}, or set ANARCH_DISABLE_PLUGINS={plugin.name}@{plugin.distribution}"
    if f"No module named '{plugin.module}'" in plugin.error:
        return f"the installation of {plugin.distribution} is out of date: install it again"
    return f"update or uninstall {plugin.distribution}, tell its author, or set ANARCH_DISABLE_PLUGINS={plugin.name}"
