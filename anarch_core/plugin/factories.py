"""Functions of the user's that stand where a component could: ``package.module:factory``, imported because the user names them."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from anarch_core.errors import AnarchError, ConfigError, UnknownComponentError, one_line
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.records import TARGET_PATTERN
from anarch_core.plugin.registry import Registry

FACTORIES = ("model", "dataset")
"""Kinds of components for which a factory may stand."""

_OF_THIS_PROCESS = ("__main__", "anarch_core.data.held")
"""Modules that hold something else in every process: a script or a notebook, and data that were given as an object."""


def of_this_process(spec: str) -> bool:
    """Whether what a factory's name leads to is known in this process alone, so that no worker can have it."""
    return spec.partition(":")[0] in _OF_THIS_PROCESS


def as_argument(spec: str) -> str:
    """What is given again in Python for a factory of this process: its name in the notebook, ``...`` for an object without one."""
    module, _, name = spec.partition(":")
    return name if module == "__main__" else f'"{spec}"' if not of_this_process(spec) else "..."


def is_factory(kind: str, spec: str, registry: Registry) -> bool:
    """Whether ``spec`` is to be imported, written ``package.module:factory``, and no component has the name before the colon."""
    if kind not in FACTORIES or not TARGET_PATTERN.fullmatch(spec):
        return False
    try:
        registry.find(kind, parse_spec(spec)[0])
    except UnknownComponentError:
        return True
    return False


def call_factory(kind: str, name: str, available: Mapping[str, Any], options: Mapping[str, Any]) -> object:
    """What a factory gives, called with those of the ``available`` arguments that it declares, and the options.

    Args:
        kind: of component that it stands for, for messages.
        name: ``"package.module:factory"``.
        available: arguments by name.
        options: further arguments, which it has to take.

    Raises:
        ConfigError: it cannot be imported, or the call failed.
    """
    factory = _imported(kind, name)
    arguments = {key: value for key, value in available.items() if key in inspect.signature(factory).parameters} | dict(options)
    try:
        return factory(**arguments)
    except AnarchError:
        raise
    except Exception as error:
        called = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        msg = f"{_word(kind)} {name}: the call {name.partition(':')[2]}({called}) failed: {one_line(error)}"
        raise ConfigError(msg) from error


def _imported(kind: str, name: str) -> Callable[..., object]:
    """What the name names, found as ``python -m`` would find it: in the working directory, then among the packages."""
    kind = _word(kind)
    module_name, _, attribute = name.partition(":")
    sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        msg = f"{kind} {name}: cannot import the module {module_name!r}: {one_line(error)}"
        raise ConfigError(msg) from error
    finally:
        sys.path.remove("")
    factory: object = getattr(module, attribute, None)
    if not callable(factory):
        msg = f"{kind} {name}: {module_name!r} has no function or class {attribute!r}"
        raise ConfigError(msg)
    return factory


def _word(kind: str) -> str:
    return "data" if kind == "dataset" else kind
