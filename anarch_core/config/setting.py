"""What every setting of a run says of itself, and how it is converted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import attrs

from anarch_core.bounds import Between
from anarch_core.errors import ConfigError


def setting(
    help: str,
    *,
    metavar: str | None = None,
    kind: str | None = None,
    range: Between | None = None,
    identity: bool = True,
    grows: bool = False,
    later: bool = False,
) -> dict[str, Any]:
    """Metadata of a setting.

    Args:
        help: one sentence for ``--help`` and the documentation.
        metavar: how its value is called there.
        kind: kind of component it names.
        range: the numbers it takes, for the help.
        identity: whether two runs that differ in it alone are different runs, and have directories of their own by default.
        grows: whether a run directory may be asked with another value, which says what segments and numbers are wanted, not how made.
        later: whether there were runs before there was this setting: its default, which is what they did, leaves their names as they were.
    """
    told = {"help": help, "metavar": metavar, "kind": kind, "range": range}
    return {**told, "identity": identity, "grows": grows or not identity, "later": later}


def named(_: type, fields: list[attrs.Attribute[Any]]) -> list[attrs.Attribute[Any]]:
    """Make every converter say which setting it refuses."""

    def naming(name: str, convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def converter(value: Any) -> Any:
            try:
                return convert(value)
            except ConfigError as error:
                msg = f"{name}: {error}"
                raise ConfigError(msg) from None

        return converter

    return [field.evolve(converter=naming(field.name, cast("Callable[[Any], Any]", field.converter))) for field in fields]
