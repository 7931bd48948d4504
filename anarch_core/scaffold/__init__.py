"""``anarch plugins new``: a complete distribution with one plugin, to be changed into one's own."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template

from anarch_core.config.files import SETTINGS
from anarch_core.errors import ConfigError
from anarch_core.plugin import Registry
from anarch_core.plugin.records import NAME_PATTERN, with_article
from anarch_core.plugin.registry import KINDS
from anarch_core.version import __version__

PREFIX = "anarch-"
SUFFIX = ".template"
SCAFFOLDED = tuple(kind for kind in KINDS if kind != "command")
"""Kinds that there is a template for."""


def create(name: str, kind: str, folder: Path, *, registry: Registry) -> Path:
    """Write a distribution that installs, is found, runs, and passes its tests.

    Args:
        name: of the component; the distribution is called ``anarch-<name>``.
        kind: one of :data:`SCAFFOLDED`.
        folder: where the distribution's own folder is made.
        registry: the installed plugins, whose names are taken.

    Returns:
        the distribution's folder.

    Raises:
        ConfigError: the name cannot be used, or the folder exists.
    """
    name = name.removeprefix(PREFIX)
    check_name(name, registry)
    root = folder / f"{PREFIX}{name}"
    if root.exists():
        msg = f"{str(root)!r} exists already; choose another name or --dir, or remove it"
        raise ConfigError(msg)
    values = _values(name, kind)
    templates = resources.files(__name__) / "templates"
    for source in (templates / "common", templates / kind):
        for path, template in _files(source):
            target = root / Path(path.replace("package/", f"{values['package']}/").removesuffix(SUFFIX))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(template.read_text(encoding="utf-8")).substitute(values), encoding="utf-8")
    return root


def check_name(name: str, registry: Registry) -> None:
    """Refuse a name that a plugin could not have.

    Raises:
        ConfigError: it is badly spelt, taken, or would give flags that ``anarch run`` has.
    """
    if not NAME_PATTERN.fullmatch(name) or name.endswith("-") or "--" in name:
        msg = f"{name!r} is not a name; write lower-case letters, digits and single hyphens, starting with a letter, as in 'low-rank'"
        raise ConfigError(msg)
    if name in ("core", "plugins"):
        msg = f"the package anarch_{name} is anarch's own; choose another name than {name!r}"
        raise ConfigError(msg)
    for kind in KINDS:
        if name in registry.names(kind):
            distribution, version = registry.owner(registry.find(kind, name))
            msg = f"the name {name!r} is taken by {with_article(kind)} of {distribution} {version}; choose another"
            raise ConfigError(msg)
    for flag in (setting.replace("_", "-") for setting in SETTINGS):
        if flag.startswith(f"{name}-"):
            msg = f"options of {name!r} would be called --{name}-..., as --{flag} of 'anarch run' is; choose another name"
            raise ConfigError(msg)


def _values(name: str, kind: str) -> dict[str, str]:
    major, minor, *_ = __version__.split(".")
    return {
        "name": name,
        "kind": kind,
        "distribution": f"{PREFIX}{name}",
        "package": f"{PREFIX}{name}".replace("-", "_"),
        "Class": "".join(part.capitalize() for part in name.split("-")),
        "Kind": kind.capitalize(),
        "requirement": f"anarch>={major}.{minor},<{major}.{int(minor) + 1}",
        "test_requirement": f"anarch[test]>={major}.{minor},<{major}.{int(minor) + 1}",
        "year": str(datetime.datetime.now(tz=datetime.UTC).year),
        "usage": _USAGE[kind].format(name=name),
    }


_USAGE = {
    "relaxation": "anarch run --relax {name}",
    "probe": "anarch run --relax efcn --probe {name}",
    "schedule": "anarch run --relax efcn --switch {name}",
    "model": "anarch run --relax efcn --model {name}",
    "dataset": "anarch run --relax efcn --data {name}",
    "optimizer": "anarch run --relax efcn --optimizer {name} --lr 0.001 --branch-lr 0.0005",
    "objective": "anarch run --relax efcn --objective {name}",
    "augmentation": "anarch run --relax efcn --augment {name}",
    "penalty": "anarch run --relax efcn --penalty {name}",
    "observer": "anarch run --relax efcn --observe {name}",
    "workers": "anarch run --relax efcn --workers {name}",
    "figure": "anarch run --relax efcn --probe delta",
}


def _files(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    """Templates below a folder, with their paths in it."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _files(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            yield f"{prefix}{entry.name}", entry
