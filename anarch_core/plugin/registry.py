"""Components by name: what the installed plugins provide, and what to tell a user who asks for something else."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

from anarch_core.errors import AnarchError, ComponentConflictError, OptionError, UnknownComponentError, plain
from anarch_core.plugin.blame import on_behalf_of, sign
from anarch_core.plugin.discovery import PluginRecord, discover, normalised
from anarch_core.plugin.hooks import KINDS
from anarch_core.plugin.options import build, parse_spec, spec_options
from anarch_core.plugin.records import ComponentInfo, ModelInfo
from anarch_core.plugin.target import require_kind, resolved
from anarch_core.plugin.unknown import failure_note, unknown

__all__ = ["KINDS", "Registry", "get_registry"]

MOST_MODELS = 100_000
"""Names that a zoo may have; more are taken for a mistake."""


@attrs.frozen
class Registry:
    """The components of the plugins that were loaded.

    Attributes:
        plugins: one record per entry point, whatever became of it.
    """

    plugins: tuple[PluginRecord, ...]

    @classmethod
    def load(cls, *, disabled: Iterable[str] | None = None, builtin_only: bool | None = None, strict: bool | None = None) -> Registry:
        """Discover the installed plugins.

        Args:
            disabled: plugins not to import, as ``"name"`` or ``"name@distribution"``; None for those of ``ANARCH_DISABLE_PLUGINS``.
            builtin_only: import none but anarch's own; None for whether ``ANARCH_NO_PLUGINS`` is set.
            strict: raise for a plugin that cannot be used; None for whether ``ANARCH_STRICT_PLUGINS`` is set.

        Raises:
            PluginError: with ``strict``.
        """
        if disabled is None:
            disabled = disabled_by_user()
        if builtin_only is None:
            builtin_only = builtin_by_user()
        if strict is None:
            strict = bool(os.environ.get("ANARCH_STRICT_PLUGINS"))
        return cls(tuple(discover(disabled=tuple(disabled), builtin_only=builtin_only, strict=strict)))

    def infos(self, kind: str) -> list[ComponentInfo]:
        """All components of a kind, by name."""
        if kind not in KINDS:
            msg = f"{kind!r} is not a kind of component: {', '.join(KINDS)}"
            raise ValueError(msg)
        return sorted((info for plugin in self.plugins for info in plugin.components if info.kind == kind), key=lambda info: info.name)

    def names(self, kind: str) -> list[str]:
        """The names of a kind, each once, without aliases."""
        return list(dict.fromkeys(info.name for info in self.infos(kind)))

    def plugin_of(self, info: ComponentInfo) -> PluginRecord:
        """The plugin that registered a component."""
        return next(plugin for plugin in self.plugins if any(info is component for component in plugin.components))

    def origin(self, info: ComponentInfo) -> str:
        """Which component it is, and whose, as a message begins."""
        plugin = self.plugin_of(info)
        return f"{info.kind} {info.name!r} of plugin {plugin.name!r} ({plugin.owner})"

    def owner(self, info: ComponentInfo) -> tuple[str, str]:
        """The distribution that a component comes from, and its version."""
        plugin = self.plugin_of(info)
        return plugin.distribution, plugin.version

    def find(self, kind: str, name: str) -> ComponentInfo:
        """The component of a kind with a name, an alias, or ``"name@distribution"``.

        Raises:
            UnknownComponentError: there is none; the message says what was probably meant.
            ComponentConflictError: there are several, of different distributions.
        """
        plain, _, distribution = name.partition("@")
        infos = self.infos(kind)
        if distribution:
            infos = [info for info in infos if normalised(self.owner(info)[0]) == normalised(distribution)]
        matches = [info for info in infos if info.name == plain]
        if not matches:
            matches = [info for info in infos if plain in info.aliases]
            if len(matches) == 1:
                warnings.warn(f"{kind} {plain!r} is now called {matches[0].name!r}", FutureWarning, stacklevel=2)
        if not matches:
            raise unknown(self.plugins, kind, name)
        if len(matches) > 1:
            owners = [self.owner(info)[0] for info in matches]
            msg = f"{kind} {plain!r} is provided by {' and '.join(owners)}; write {' or '.join(f'{plain}@{owner}' for owner in owners)}"
            raise ComponentConflictError(msg)
        return matches[0]

    def find_all(self, wanted: Sequence[tuple[str, str]]) -> list[ComponentInfo]:
        """The components of several (kind, name) pairs, where a name may be one of a zoo; all that are unknown are reported together.

        Raises:
            UnknownComponentError: at least one is unknown.
            ComponentConflictError: at least one is provided twice.
        """
        found: list[ComponentInfo] = []
        missing: list[UnknownComponentError] = []
        for kind, name in wanted:
            try:
                found.append(self.find(kind, parse_spec(self.spelt_out(kind, name))[0]))
            except UnknownComponentError as error:
                missing.append(error)
        if missing:
            first, note = missing[0], failure_note(self.plugins)
            message = "; ".join(str(error).removesuffix(note) for error in missing)
            raise UnknownComponentError(message + note, kind=first.kind, name=first.name, suggestions=first.suggestions)
        return found

    def spelt_out(self, kind: str, spec: str) -> str:
        """A spec as ``name:value`` where it is one of a zoo: ``"torchvision:resnet18"`` for the model ``"resnet18"``.

        Other specs are given back: those with a value, and components, which come before the models of zoos. Zoos are imported only to
        look for a name that no component has.

        Raises:
            UnknownComponentError: no component has the name, and no zoo; the message says which zoos could not be searched.
            ComponentConflictError: several components or several zoos have it.
        """
        name, value = parse_spec(spec)
        if kind != "model" or value is not None:
            return spec
        with contextlib.suppress(UnknownComponentError):
            self.find(kind, name)
            return spec
        zoos: dict[str, Sequence[str]] = {}
        failed, clashes = "", self.clashes()
        for info in self.infos(kind):
            owner = f"{info.name}@{self.owner(info)[0]}" if info.name in clashes else info.name
            try:
                zoos[owner] = self.zoo(info)
            except AnarchError as error:
                failed += f"; the models of {owner} were not searched: {error}"
        owners = [owner for owner, names in zoos.items() if name in names]
        if not owners:
            raise unknown(self.plugins, kind, name, further=itertools.chain.from_iterable(zoos.values()), note=failed)
        if len(owners) > 1:
            msg = f"{kind} {name!r} is one of {' and of '.join(owners)}; write {' or '.join(f'{owner}:{name}' for owner in owners)}"
            raise ComponentConflictError(msg)
        return f"{owners[0]}:{name}"

    def zoo(self, info: ComponentInfo) -> tuple[str, ...]:
        """The names of all models that the first option of a model chooses from; none for a component without a zoo.

        Raises:
            MissingDependencyError: a package that has the models is missing or broken.
            PluginError: the names cannot be had for another reason.
        """
        if not isinstance(info, ModelInfo) or info.zoo is None:
            return ()
        with on_behalf_of(self.origin(info), f"cannot list {info.zoo!r}"):
            names = tuple(itertools.islice(resolved(info.zoo)(), MOST_MODELS + 1))
            if len(names) > MOST_MODELS:
                msg = f"more than {MOST_MODELS} names"
                raise ValueError(msg)
            if strange := [name for name in names if not isinstance(name, str)]:
                msg = f"{plain(strange[0], 50)} is a {type(strange[0]).__name__}, expected a name"
                raise TypeError(msg)
        return names

    def target(self, info: ComponentInfo) -> Any:
        """Import what a component names.

        Raises:
            PluginError: it cannot be imported, or is not what its kind promises.
        """
        with on_behalf_of(self.origin(info), f"cannot import {info.target!r}"):
            target = resolved(info.target)
        require_kind(info, target, self.origin(info))
        return target

    def call(self, info: ComponentInfo, *arguments: Any) -> Any:
        """What the target of a component makes of some arguments; it knows where it comes from, see :mod:`anarch_core.plugin.blame`.

        Raises:
            PluginError: it cannot be imported, is not what its kind promises, or raises.
        """
        target = self.target(info)
        with on_behalf_of(self.origin(info)):
            made = target(*arguments)
        sign(made, self.origin(info))
        return made

    def parse_options(self, info: ComponentInfo, options: Any = None) -> Any:
        """The options of a component as an instance of its option class; None for a component without options.

        Args:
            info: the component.
            options: values by field name, an instance of the option class, or None for the defaults.

        Raises:
            OptionError: an option is unknown or missing, or has a value that is not allowed.
        """
        if info.options is None:
            if options:
                msg = f"[{info.name}] has no options, so nothing can be set: {options!r}"
                raise OptionError(msg)
            return None
        if isinstance(options, info.options):
            return options
        if options is not None and not isinstance(options, Mapping):
            msg = f"[{info.name}] takes {info.options.__name__} or a mapping: {options!r}"
            raise OptionError(msg)
        with on_behalf_of(self.origin(info)):
            return build(info.options, options or {}, name=info.name)

    def chosen(self, kind: str, spec: str, options: Mapping[str, Any] | None = None) -> tuple[ComponentInfo, dict[str, Any]]:
        """The component that ``name`` or ``name:value`` stands for, and the options by name, the value among them.

        Args:
            kind: of the component.
            spec: as users write it.
            options: given beside it; the value goes over them.

        Raises:
            UnknownComponentError: no plugin provides it.
            OptionError: it takes no such value.
        """
        name, value = parse_spec(spec)
        info = self.find(kind, name)
        given = dict(options or {})
        return info, given if value is None else given | spec_options(info.options, value, name=info.name)

    def create(self, kind: str, name: str, options: Any = None) -> Any:
        """An instance of a relaxation, probe, schedule, objective or observer: its target, called with its options.

        Options are checked before anything is imported.

        Args:
            kind: ``"relaxation"``, ``"probe"``, ``"schedule"``, ``"objective"`` or ``"observer"``.
            name: as for :meth:`find`.
            options: as for :meth:`parse_options`.
        """
        info = self.find(kind, name)
        return self.call(info, self.parse_options(info, options))

    def failures(self) -> list[PluginRecord]:
        """The plugins that could not be used."""
        return [plugin for plugin in self.plugins if plugin.failed]

    def clashes(self, namespace: str = "component") -> dict[str, list[PluginRecord]]:
        """Names of a namespace (see :class:`ComponentInfo`) that more than one plugin provides, with their plugins."""
        owners: defaultdict[str, list[PluginRecord]] = defaultdict(list)
        for plugin in self.plugins:
            for info in plugin.components:
                if info.namespace == namespace:
                    owners[info.name].append(plugin)
        return {name: plugins for name, plugins in sorted(owners.items()) if len(plugins) > 1}


def disabled_by_user() -> tuple[str, ...]:
    """Plugins that ``ANARCH_DISABLE_PLUGINS`` names."""
    return tuple(filter(None, os.environ.get("ANARCH_DISABLE_PLUGINS", "").split(",")))


def builtin_by_user() -> bool:
    """Whether ``ANARCH_NO_PLUGINS`` is set."""
    return bool(os.environ.get("ANARCH_NO_PLUGINS"))


@functools.cache
def get_registry() -> Registry:
    """The registry of the command line and of the public functions: loaded once, as the environment variables say."""
    return Registry.load()
