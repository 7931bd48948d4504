"""What the import string of a record leads to, and whether its kind takes it."""

from __future__ import annotations

import importlib
from typing import Any

from anarch_core.errors import PluginError
from anarch_core.plugin.records import ComponentInfo, with_article

# What the target of a component must be a subclass of; the other kinds are called.
_INTERFACES = {
    "relaxation": "anarch_core.relaxation.base:AbstractRelaxation",
    "probe": "anarch_core.probe.base:AbstractProbe",
    "schedule": "anarch_core.schedule:AbstractSchedule",
    "augmentation": "anarch_core.augmentation:AbstractAugmentation",
    "objective": "anarch_core.objective.base:AbstractObjective",
    "penalty": "anarch_core.training.penalty:AbstractPenalty",
    "observer": "anarch_core.observer.base:AbstractObserver",
    "workers": "anarch_core.workers.base:AbstractWorkers",
    "figure": "anarch_core.report.figure:AbstractFigure",
}


def resolved(target: str) -> Any:
    """What ``"package.module:Name"`` names; whatever importing it raises is raised."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def require_kind(info: ComponentInfo, target: Any, who: str) -> None:
    """Refuse a target that is not what its kind promises.

    Args:
        info: of the component.
        target: what it names.
        who: the component, for the message.

    Raises:
        PluginError: it is something else, or a class that lacks a method of its interface.
    """
    interface = _INTERFACES.get(info.kind)
    if interface is not None:
        if not (isinstance(target, type) and issubclass(target, resolved(interface))):
            msg = f"{who}: {info.target!r} must be a subclass of {interface.replace(':', '.')}"
            raise PluginError(msg)
        missing = sorted(getattr(target, "__abstractmethods__", ()))
        if missing:
            msg = f"{who}: {info.target!r} lacks {', '.join(f'{name}()' for name in missing)}, which {with_article(info.kind)} must have"
            raise PluginError(msg)
    elif info.kind == "command":
        import click

        if not isinstance(target, click.Command):
            msg = f"{who}: {info.target!r} must be a click.Command"
            raise PluginError(msg)
    elif not callable(target):
        msg = f"{who}: {info.target!r} must be callable"
        raise PluginError(msg)
