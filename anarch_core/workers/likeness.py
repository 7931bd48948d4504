"""What must be alike where a run is asked for and where its segments are trained, so that both mean the same by it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from anarch_core.config.files import KINDS, chosen
from anarch_core.config.run_config import RunConfig
from anarch_core.machine import PACKAGES
from anarch_core.plugin.discovery import PluginRecord, Status
from anarch_core.plugin.factories import is_factory
from anarch_core.plugin.hookspecs import API_VERSION
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.registry import Registry, get_registry

ELSEWHERE = ("observer", "workers")
"""Kinds of components that are where the run is asked for."""

_PLUGIN = "plugin "


def versions(config: RunConfig | None = None, registry: Registry | None = None) -> dict[str, str]:
    """Versions by name, as words that travel anywhere; neither PyTorch nor NumPy is imported for them.

    Args:
        config: a run, complete: of others' plugins, those that have its components; None for all.
        registry: of the plugins; those that are installed by default.
    """
    registry = registry or get_registry()
    found = {"Python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    for package in PACKAGES:
        try:
            # One version of PyTorch is "2.14.1+cpu" here and "2.14.1+cu128" there.
            found[package] = version(package).partition("+")[0]
        except PackageNotFoundError:
            found[package] = "none"
    found["API of plugins"] = ".".join(map(str, API_VERSION))
    plugins = registry.plugins if config is None else _used(registry, config)
    return found | {_key(plugin): plugin.owner for plugin in plugins if not plugin.builtin and plugin.status is Status.LOADED}


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """Why somebody cannot work for a run, ``"has torch 2.13.0, the run was begun with 2.14.1"``; None if all that it needs is alike.

    Args:
        ours: likeness of where the run was begun.
        theirs: of where it is to be trained; what there is besides does not matter.
    """
    found = []
    for name, wanted in ours.items():
        there = theirs.get(name)
        if there is None:
            found.append(f"has no {name} ({wanted})" if name.startswith(_PLUGIN) else f"has no {name}")
        elif there != wanted and name.startswith(_PLUGIN):
            found.append(f"has {name} of {there}, the run was begun with that of {wanted}")
        elif there != wanted:
            found.append(f"has {name} {there}, the run was begun with {wanted}")
    return "; ".join(found) or None


def _used(registry: Registry, config: RunConfig) -> Iterator[PluginRecord]:
    """The plugins whose components train and measure segments."""
    for setting, kind in KINDS.items():
        for spec in chosen(config, setting) if kind not in ELSEWHERE else ():
            if not is_factory(kind, spec, registry):
                yield registry.plugin_of(registry.find(kind, parse_spec(spec)[0]))


def _key(plugin: PluginRecord) -> str:
    return f"{_PLUGIN}{plugin.name!r}"
