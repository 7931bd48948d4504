"""What to tell a user who asks for a component that no plugin provides."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from anarch_core.errors import UnknownComponentError, close_matches, did_you_mean
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.hooks import KINDS
from anarch_core.plugin.records import with_article

FLAGS = {
    "relaxation": "--relax",
    "probe": "--probe",
    "schedule": "--switch",
    "model": "--model",
    "dataset": "--data",
    "optimizer": "--optimizer",
    "augmentation": "--augment",
    "objective": "--objective",
    "penalty": "--penalty",
    "observer": "--observe",
    "workers": "--workers",
}

OTHERWISE = {
    "dataset": "; give a file with the name of what reads it, NAME:FILE, and a function of your own as package.module:function",
    "model": "; give a function of your own as package.module:function",
}
"""What a user may have meant who named no component."""


def unknown(plugins: Sequence[PluginRecord], kind: str, name: str, *, further: Iterable[str] = (), note: str = "") -> UnknownComponentError:
    """What to tell of a name: ``further`` ones that it may have been meant for, and a ``note`` on where was not looked."""
    plain, _, distribution = name.partition("@")
    message = f"unknown {kind} {name!r}"
    if distribution and plain in _names(plugins, kind):
        message += f": distribution {distribution!r} provides none of that name"
        return UnknownComponentError(message, kind=kind, name=name, suggestions=[plain])
    for plugin in plugins:
        if plugin.status is not Status.LOADED and plugin.name.replace("_", "-") == plain:
            message += f": plugin {plugin.name!r} ({plugin.owner}) is {plugin.status} ({plugin.error}); see 'anarch plugins doctor'"
            return UnknownComponentError(message, kind=kind, name=name)
    others = [other for other in KINDS if other != kind and plain in _names(plugins, other)]
    close = close_matches(plain, [*_names(plugins, kind), *further])
    if others:
        message += f": {plain!r} names {with_article(others[0])}" + (f", use {FLAGS[others[0]]} {plain}" if others[0] in FLAGS else "")
    else:
        message += did_you_mean(close) or f" (known: {', '.join(_names(plugins, kind)) or 'none'}){OTHERWISE.get(kind, '')}"
    return UnknownComponentError(message + note + failure_note(plugins), kind=kind, name=name, suggestions=close)


def failure_note(plugins: Sequence[PluginRecord]) -> str:
    """How a message goes on where plugins could not be loaded; nothing where all could."""
    count = sum(plugin.failed for plugin in plugins)
    return f" ({count} plugin{'s' if count > 1 else ''} could not be loaded: see 'anarch plugins doctor')" if count else ""


def _names(plugins: Sequence[PluginRecord], kind: str) -> list[str]:
    return sorted({info.name for plugin in plugins for info in plugin.components if info.kind == kind})
