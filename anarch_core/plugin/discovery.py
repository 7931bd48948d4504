"""Finds plugins and loads them one by one, so that one that fails takes nothing else with it."""

from __future__ import annotations

import enum
import importlib.metadata
import re
import sys
import time
import traceback
import warnings
from collections.abc import Collection, Iterator
from contextlib import nullcontext

import attrs

from anarch_core.errors import PluginError, plain
from anarch_core.plugin import hookspecs
from anarch_core.plugin.guard import Guard, InterruptedImportError
from anarch_core.plugin.hooks import components_of, incompatibility
from anarch_core.plugin.records import ComponentInfo

BUILTIN_DISTRIBUTION = "anarch"


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
        exception: what broke it.
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
    exception: BaseException | None = attrs.field(default=None, eq=False, repr=False)

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

    Others' cannot take the program with them, whatever they do while they are imported, unless they crash the interpreter; see
    :class:`anarch_core.plugin.guard.Guard`.

    Args:
        disabled: plugins not to import, as ``"name"`` or ``"name@distribution"``.
        builtin_only: import none but anarch's own.
        strict: raise for the first plugin that is broken, incompatible or shadowed, instead of recording it.

    Raises:
        PluginError: with ``strict``.
        KeyboardInterrupt: the user interrupted an import; the message names the plugin.
    """
    records: list[PluginRecord] = []
    with Guard() as guard:
        for point, found in installed(disabled=disabled, builtin_only=builtin_only):
            record = found if point is None else load(point, found, guard)
            if strict and record.failed:
                raise PluginError(_strict_message(record)) from record.exception
            records.append(record)
    return records


def installed(
    *, disabled: Collection[str] = (), builtin_only: bool = False
) -> Iterator[tuple[importlib.metadata.EntryPoint | None, PluginRecord]]:
    """What is known of every installed plugin before anything is imported, with the entry point of those that are to be.

    Args:
        disabled: as for :func:`discover`.
        builtin_only: likewise.
    """
    denied = {_deny(entry) for entry in disabled}
    owners: dict[str, str] = {}
    for point, record in entry_points():
        if builtin_only and not record.builtin:
            yield None, attrs.evolve(record, status=Status.DISABLED, error="only built-in plugins were asked for")
        elif not denied.isdisjoint({record.name, f"{record.name}@{normalised(record.distribution)}"}):
            yield None, attrs.evolve(record, status=Status.DISABLED, error="disabled by the user")
        elif record.name in owners:
            error = f"{owners[record.name]} has a plugin {record.name!r} too; disable one ('{record.name}@distribution') or rename it"
            yield None, attrs.evolve(record, status=Status.SHADOWED, error=error)
        else:
            owners[record.name] = record.owner
            yield point, record


def load(point: importlib.metadata.EntryPoint, record: PluginRecord, guard: Guard | None = None) -> PluginRecord:
    """Import a plugin and ask its hooks.

    Args:
        point: its entry point.
        record: what is known of it.
        guard: against what others' plugins may do; None where the whole process is there for this one.

    Returns:
        what became of it; whatever it raised is in the record.

    Raises:
        KeyboardInterrupt: the user interrupted it.
    """
    torch_before = "torch" in sys.modules
    started = time.perf_counter()
    status, error, trace = Status.LOADED, "", ""
    components: tuple[ComponentInfo, ...] = ()
    raised: BaseException | None = None
    try:
        with nullcontext() if guard is None or record.builtin else guard.importing(record.name, record.owner):
            module = point.load()
            error = incompatibility(module)
            if error:
                status = Status.INCOMPATIBLE
            else:
                components = components_of(module, point.name)
    except InterruptedImportError:
        raise
    except BaseException as exception:
        if isinstance(exception, KeyboardInterrupt) and guard is not None and record.builtin:
            raise
        status, raised = Status.BROKEN, exception
        # A rule of the interface explains itself; anything else needs the name of its exception.
        text = plain(exception, 1000)
        error = text if isinstance(exception, PluginError) else f"{type(exception).__name__}: {text}"
        trace = "".join(traceback.format_exception(exception))
    return attrs.evolve(
        record,
        status=status,
        error=error,
        traceback=trace,
        seconds=time.perf_counter() - started,
        components=components,
        imports_torch=None if torch_before else "torch" in sys.modules,
        exception=raised,
    )


def entry_points() -> list[tuple[importlib.metadata.EntryPoint, PluginRecord]]:
    """The entry points of the group, each with what is known without importing it, in an order that does not depend on the file system."""
    try:
        # Of two copies of a distribution, importlib.metadata takes the one that comes first on the path, as an import would.
        found = list(importlib.metadata.entry_points(group=hookspecs.GROUP))
    except Exception:  # of one distribution they cannot be read: the others are there
        found = _readable_entry_points()

    def key(point: importlib.metadata.EntryPoint) -> tuple[bool, str, str]:
        distribution = normalised(_owner(point)[0])
        return distribution != BUILTIN_DISTRIBUTION, point.name, distribution

    return [(point, _describe(point)) for point in sorted(found, key=key)]


def _readable_entry_points() -> list[importlib.metadata.EntryPoint]:
    found: list[importlib.metadata.EntryPoint] = []
    names = set()
    for distribution in importlib.metadata.distributions():
        try:
            name, points = normalised(str(distribution.name)), distribution.entry_points.select(group=hookspecs.GROUP)
        except Exception as error:
            where = plain(getattr(distribution, "_path", distribution))
            warnings.warn(f"the entry points of {where} cannot be read, so it has no plugins: {plain(error)}", stacklevel=2)
            continue
        if name not in names:
            names.add(name)
            found += points
    return found


def _owner(point: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution; what its metadata do not say is "unknown"."""
    try:
        return str(point.dist.name or "unknown"), str(point.dist.version or "unknown")  # type: ignore[union-attr]
    except Exception:
        return "unknown", "unknown"


def _describe(point: importlib.metadata.EntryPoint) -> PluginRecord:
    name, version = _owner(point)
    return PluginRecord(
        name=plain(point.name, 100),
        module=plain(point.value, 200),
        distribution=plain(name, 100),
        version=plain(version, 100),
        status=Status.LOADED,
    )


def _deny(entry: str) -> str:
    name, at, distribution = entry.strip().partition("@")
    return f"{name}@{normalised(distribution)}" if at else name


def _strict_message(record: PluginRecord) -> str:
    return f"plugin {record.name!r} ({record.owner}) is {record.status}: {record.error}"
