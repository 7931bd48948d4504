"""Finds plugins and loads them one by one, so that one that fails takes nothing else with it."""

from __future__ import annotations

import enum
import importlib.metadata
import inspect
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterator
from types import ModuleType
from typing import Any

import attrs
import pluggy

from anarch_core.errors import PluginError, close_matches, did_you_mean
from anarch_core.plugin import hookspecs
from anarch_core.plugin.options import option_fields
from anarch_core.plugin.records import (
    CommandInfo,
    ComponentInfo,
    DatasetInfo,
    FigureInfo,
    ModelInfo,
    OptimizerInfo,
    ProbeInfo,
    RelaxationInfo,
    ScheduleInfo,
)

BUILTIN_DISTRIBUTION = "anarch"

RECORDS: dict[str, type[ComponentInfo]] = {
    "anarch_relaxations": RelaxationInfo,
    "anarch_probes": ProbeInfo,
    "anarch_schedules": ScheduleInfo,
    "anarch_models": ModelInfo,
    "anarch_datasets": DatasetInfo,
    "anarch_optimizers": OptimizerInfo,
    "anarch_figures": FigureInfo,
    "anarch_commands": CommandInfo,
}

KINDS = tuple(record.kind for record in RECORDS.values())


class Status(enum.StrEnum):
    """What became of a plugin."""

    LOADED = "loaded"
    DISABLED = "disabled"
    """Not imported, because the user said so."""
    BROKEN = "broken"
    """Raised, or broke a rule; none of its components exist."""
    SHADOWED = "shadowed"
    """Not imported, because another distribution has a plugin of that name."""
    INCOMPATIBLE = "incompatible"
    """Written for another plugin interface; none of its hooks was called."""


@attrs.frozen(kw_only=True)
class PluginRecord:
    """What is known of one entry point.

    Attributes:
        name: name of the entry point.
        module: the module it names.
        distribution: the distribution that has it, as it spells itself.
        version: version of that distribution.
        status: what became of it.
        error: why it is not loaded, in one line; empty when it is.
        traceback: of the exception that broke it; empty without one.
        seconds: time its import and its hooks took.
        components: what it registered.
        imports_torch: whether importing it imported torch; None when that cannot be told, because torch was imported before.
    """

    name: str
    module: str
    distribution: str
    version: str
    status: Status
    error: str = ""
    traceback: str = ""
    seconds: float = 0.0
    components: tuple[ComponentInfo, ...] = ()
    imports_torch: bool | None = None

    @property
    def builtin(self) -> bool:
        """Whether it comes with anarch."""
        return normalised(self.distribution) == BUILTIN_DISTRIBUTION

    @property
    def failed(self) -> bool:
        """Whether it could not be used, and not because the user said so."""
        return self.status in {Status.BROKEN, Status.SHADOWED, Status.INCOMPATIBLE}

    @property
    def owner(self) -> str:
        """Distribution and version, for messages."""
        return f"{self.distribution} {self.version}"


def normalised(distribution: str) -> str:
    """A distribution's name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def discover(*, disabled: Collection[str] = (), builtin_only: bool = False, strict: bool = False) -> list[PluginRecord]:
    """Load every installed plugin, own ones first, then by name.

    Args:
        disabled: plugins not to import, as ``"name"`` or ``"name@distribution"``.
        builtin_only: import none but anarch's own.
        strict: raise for the first plugin that is broken, incompatible or shadowed, instead of recording it.

    Raises:
        PluginError: with ``strict``.
    """
    denied = {_deny(entry) for entry in disabled}
    records: list[PluginRecord] = []
    owners: dict[str, str] = {}
    for point in _entry_points():
        record = _describe(point)
        if builtin_only and not record.builtin:
            record = attrs.evolve(record, status=Status.DISABLED, error="only built-in plugins were asked for")
        elif not denied.isdisjoint({record.name, f"{record.name}@{normalised(record.distribution)}"}):
            record = attrs.evolve(record, status=Status.DISABLED, error="disabled by the user")
        elif record.name in owners:
            error = f"{owners[record.name]} has a plugin {record.name!r} too; disable one ('{record.name}@distribution') or rename it"
            record = attrs.evolve(record, status=Status.SHADOWED, error=error)
        else:
            owners[record.name] = record.owner
            record = _load(point, record, strict=strict)
        if strict and record.status not in {Status.LOADED, Status.DISABLED}:
            raise PluginError(_strict_message(record))
        records.append(record)
    return records


def _entry_points() -> list[importlib.metadata.EntryPoint]:
    """The entry points of the group, in an order that does not depend on the file system."""
    # Of two copies of a distribution, importlib.metadata takes the one that comes first on the path, as an import would.
    found = importlib.metadata.entry_points(group=hookspecs.GROUP)

    def key(point: importlib.metadata.EntryPoint) -> tuple[bool, str, str]:
        distribution = normalised(point.dist.name) if point.dist else ""
        return distribution != BUILTIN_DISTRIBUTION, point.name, distribution

    return sorted(found, key=key)


def _describe(point: importlib.metadata.EntryPoint) -> PluginRecord:
    name, version = (point.dist.name, point.dist.version) if point.dist else ("unknown", "unknown")
    return PluginRecord(name=point.name, module=point.value, distribution=name, version=version, status=Status.LOADED)


def _deny(entry: str) -> str:
    name, at, distribution = entry.strip().partition("@")
    return f"{name}@{normalised(distribution)}" if at else name


def _strict_message(record: PluginRecord) -> str:
    return f"plugin {record.name!r} ({record.owner}) is {record.status}: {record.error}"


def _load(point: importlib.metadata.EntryPoint, record: PluginRecord, *, strict: bool) -> PluginRecord:
    torch_before = "torch" in sys.modules
    started = time.perf_counter()
    status, error, trace = Status.LOADED, "", ""
    components: tuple[ComponentInfo, ...] = ()
    try:
        module = point.load()
        error = _incompatibility(module)
        if error:
            status = Status.INCOMPATIBLE
        else:
            components = _components(module, point.name)
    except (Exception, SystemExit) as exception:
        status = Status.BROKEN
        # A rule of the interface explains itself; anything else needs the name of its exception.
        text = str(exception) if isinstance(exception, PluginError) else f"{type(exception).__name__}: {exception}"
        error = " ".join(text.split())
        trace = traceback.format_exc()
        if strict:
            raise PluginError(_strict_message(attrs.evolve(record, status=status, error=error))) from exception
    return attrs.evolve(
        record,
        status=status,
        error=error,
        traceback=trace,
        seconds=time.perf_counter() - started,
        components=components,
        imports_torch=None if torch_before else "torch" in sys.modules,
    )


def _incompatibility(module: object) -> str:
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


def _components(module: ModuleType, plugin: str) -> tuple[ComponentInfo, ...]:
    """What the hooks of one plugin return, checked.

    Each plugin gets a manager of its own: results can be told apart, and no version of pluggy can leave half of it registered.
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
        msg = f"hook {hook!r} must return a list of records: {result!r}"
        raise PluginError(msg)
    yield from result


def _checked(record: Any, hook: str) -> ComponentInfo:
    expected = RECORDS[hook]
    if not isinstance(record, expected):
        msg = f"hook {hook!r} must return records of type {expected.__name__}: {record!r}"
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
