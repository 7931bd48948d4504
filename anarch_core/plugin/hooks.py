"""What the hooks of one plugin return, checked."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pluggy

from anarch_core.errors import PluginError, close_matches, did_you_mean, plain
from anarch_core.plugin import hookspecs
from anarch_core.plugin.options import option_fields
from anarch_core.plugin.records import (
    AugmentationInfo,
    CommandInfo,
    ComponentInfo,
    DatasetInfo,
    FigureInfo,
    ModelInfo,
    ObjectiveInfo,
    ObserverInfo,
    OptimizerInfo,
    PenaltyInfo,
    ProbeInfo,
    RelaxationInfo,
    ScheduleInfo,
    WorkersInfo,
)

RECORDS: dict[str, type[ComponentInfo]] = {
    "anarch_relaxations": RelaxationInfo,
    "anarch_probes": ProbeInfo,
    "anarch_schedules": ScheduleInfo,
    "anarch_models": ModelInfo,
    "anarch_datasets": DatasetInfo,
    "anarch_optimizers": OptimizerInfo,
    "anarch_augmentations": AugmentationInfo,
    "anarch_objectives": ObjectiveInfo,
    "anarch_penalties": PenaltyInfo,
    "anarch_observers": ObserverInfo,
    "anarch_workers": WorkersInfo,
    "anarch_figures": FigureInfo,
    "anarch_commands": CommandInfo,
}

KINDS = tuple(record.kind for record in RECORDS.values())

MOST_COMPONENTS = 1000
"""Records that a plugin may return; more are taken for a mistake."""


def incompatibility(module: object) -> str:
    """Why the interface that a plugin was written for is not ours; empty where it is, or none is named.

    Raises:
        PluginError: it is no plugin.
    """
    if not isinstance(module, ModuleType):
        msg = f"the entry point must name a module, not a {type(module).__name__}; write 'package.module' without a colon"
        raise PluginError(msg)
    # vars, here and below: getattr would set off a module's lazy attributes.
    wanted = vars(module).get("anarch_api")
    if wanted is None:
        return ""
    if not (isinstance(wanted, tuple) and len(wanted) == 2 and all(type(number) is int for number in wanted)):
        msg = f"'anarch_api' must be a tuple of two whole numbers such as {hookspecs.API_VERSION}: {wanted!r}"
        raise PluginError(msg)
    ours = hookspecs.API_VERSION
    if wanted[0] == ours[0] and wanted[1] <= ours[1]:
        return ""
    advice = "install a newer anarch" if wanted > ours else "install a newer version of the plugin"
    return f"written for plugin interface {wanted[0]}.{wanted[1]}, this anarch has {ours[0]}.{ours[1]}; {advice}"


def components_of(module: ModuleType, plugin: str) -> tuple[ComponentInfo, ...]:
    """What the hooks of one plugin return, checked.

    Each plugin gets a manager of its own: results can be told apart, and no version of pluggy can leave half of it registered.

    Raises:
        PluginError: a rule of the interface is broken; whatever the hooks raise is raised.
    """
    manager = _Manager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    _check_names(module)
    manager.register(module, plugin)
    components = []
    for caller in manager.get_hookcallers(module) or ():
        if not caller.has_spec():
            msg = f"there is no hook {caller.name!r}{_close(caller.name)}"
            raise PluginError(msg)
        if any(impl.wrapper or impl.hookwrapper for impl in caller.get_hookimpls()):
            msg = f"hook {caller.name!r} must not be a wrapper: plugins add components, they do not see others'"
            raise PluginError(msg)
        for result in caller():
            components += [_checked(record, caller.name) for record in _iterate(result, caller.name)]
    twice = [name for name, count in Counter((info.namespace, info.name) for info in components).items() if count > 1]
    if twice:
        msg = f"component {twice[0][1]!r} is registered twice; all kinds but commands and figures share one set of names"
        raise PluginError(msg)
    return tuple(components)


class _Manager(pluggy.PluginManager):
    """Looks for hooks among a module's own functions alone, whatever its lazy attributes and imported objects are."""

    def parse_hookimpl_opts(self, plugin: Any, name: str) -> Any:
        return super().parse_hookimpl_opts(plugin, name) if inspect.isfunction(vars(plugin).get(name)) else None


def _check_names(module: ModuleType) -> None:
    """Find what pluggy passes over in silence: a hook that is not marked."""
    for name, value in vars(module).items():
        if name in RECORDS and not hasattr(value, f"{hookspecs.PROJECT}_impl"):
            msg = f"{name!r} is not marked as a hook; write '@hookimpl' above it"
            raise PluginError(msg)


def _iterate(result: Any, hook: str) -> Iterator[Any]:
    if isinstance(result, ComponentInfo) or not hasattr(result, "__iter__"):
        msg = f"hook {hook!r} must return a list of records: {plain(repr(result), 200)}"
        raise PluginError(msg)
    for number, record in enumerate(result, 1):
        if number > MOST_COMPONENTS:
            msg = f"hook {hook!r} returns more than {MOST_COMPONENTS} records"
            raise PluginError(msg)
        yield record


def _checked(record: Any, hook: str) -> ComponentInfo:
    expected = RECORDS[hook]
    if not isinstance(record, expected):
        msg = f"hook {hook!r} must return records of type {expected.__name__}: {plain(repr(record), 200)}"
        raise PluginError(msg)
    if record.options is not None:
        try:
            option_fields(record.options)
        except PluginError as error:
            msg = f"component {record.name!r}: {error}"
            raise PluginError(msg) from error
    return record


def _close(hook: str) -> str:
    return did_you_mean(close_matches(hook, RECORDS)[:1]) or f" (hooks: {', '.join(RECORDS)})"
