"""Functions, classes and data that are given where a setting takes a name: a run is resumed and trained by others, so it needs the name."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from anarch_core.errors import ConfigError, plain


def named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a command line could say them: a function or a class that makes the model or the data is its import string.

    Raises:
        ConfigError: an object was given that cannot be named.
    """
    said = dict(settings)
    for name in ("model", "data"):
        if name in said:
            said[name] = import_string(said[name], name)
    return said


def import_string(given: Any, what: str) -> Any:
    """``package.module:name`` for a function or a class, and for data that are given as an object, which this process then holds.

    Args:
        given: a name, a function, a class, or something else.
        what: ``"model"`` or ``"data"``.

    Raises:
        ConfigError: it is an object without a name of its own, as a lambda or a network.
        DataError: it is no data.
    """
    if given is None or isinstance(given, (str, int, float)):
        return given
    if what == "data" and not callable(given):
        from anarch_core.data.held import hold

        return hold(given)
    module, name = getattr(given, "__module__", None), getattr(given, "__qualname__", None)
    if isinstance(module, str) and isinstance(name, str) and getattr(sys.modules.get(module), name, None) is given:
        return f"{module}:{name}"
    kind = "a function without a name of its own" if callable(given) and name else f"a {type(given).__name__}"
    msg = (
        f"{what}: {plain(repr(given), 60)} is {kind}, and a run builds its {what} again and again, for every seed and when it is resumed; "
        f"write a function or a class that makes it at the top level of a module or of the notebook, and give that: {what}=NAME"
    )
    raise ConfigError(msg)
