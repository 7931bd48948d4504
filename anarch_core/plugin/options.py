"""Options of components: one attrs class serves Python, TOML, the command line and the identity of a run.

An option class is written once, by the component::

    @attrs.frozen(kw_only=True)
    class HessianOptions:
        top_k: int = attrs.field(default=1, validator=between(1, 100), metadata=opt("How many of the largest eigenvalues."))
        tolerance: float = attrs.field(default=1e-3, converter=float, validator=between(0, 1, above=True), metadata=opt("Relative error."))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

import attrs

from anarch_core.bounds import Between, shown
from anarch_core.errors import OptionError, PluginError, close_matches, did_you_mean
from anarch_core.plugin.option_types import OptionType, option_type

T = TypeVar("T")

_HELP = "anarch_help"


def opt(help: str) -> dict[str, Any]:
    """Metadata of an option: ``attrs.field(default=1, metadata=opt("What it does."))``."""
    return {_HELP: help}


@attrs.frozen
class OptionField:
    """One option of a component.

    Attributes:
        name: name of the field, as in TOML.
        type: what values it takes.
        help: one sentence.
        default: the default, or ``attrs.NOTHING`` where a value is required.
        range: what numbers it takes, None where the class does not say so by :func:`~anarch_core.bounds.between`.
    """

    name: str
    type: OptionType
    help: str
    default: Any
    range: Between | None = None

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is attrs.NOTHING


def option_fields(cls: type) -> tuple[OptionField, ...]:
    """The options of an option class, in the order they are written.

    Raises:
        PluginError: the class cannot serve as one; the message names class and field.
    """
    try:
        hints = get_type_hints(cls)
    except Exception as error:
        msg = f"option class {cls.__qualname__}: an annotation cannot be resolved ({error}); import its types outside 'if TYPE_CHECKING'"
        raise PluginError(msg) from error
    return tuple(_option_field(cls, attribute, hints.get(attribute.name, attribute.type)) for attribute in attrs.fields(cls))


def _option_field(cls: type, attribute: attrs.Attribute[Any], annotation: Any) -> OptionField:
    where = f"option class {cls.__qualname__}, field {attribute.name!r}"
    if not attribute.init or attribute.alias != attribute.name or not attribute.kw_only:
        msg = f"{where}: use @attrs.frozen(kw_only=True) and no 'init=False', 'alias' or leading underscore"
        raise PluginError(msg)
    if not attribute.metadata.get(_HELP):
        msg = f"{where}: no help text; write attrs.field(..., metadata=opt('What it does.'))"
        raise PluginError(msg)
    default: Any = attribute.default
    # attrs types `attrs.Factory` as a function; an instance is recognised by what it has.
    if hasattr(default, "takes_self"):
        if default.takes_self:
            msg = f"{where}: the default must not depend on other options"
            raise PluginError(msg)
        default = default.factory()
    try:
        kind = option_type(annotation)
    except TypeError as error:
        msg = f"{where}: {error}"
        raise PluginError(msg) from None
    if default is not attrs.NOTHING:
        try:
            default = kind.check(default)
        except ValueError as error:
            msg = f"{where}: the default {error}"
            raise PluginError(msg) from None
    validators = getattr(attribute.validator, "_validators", (attribute.validator,))  # attrs makes one of several
    range = next((validator for validator in validators if isinstance(validator, Between)), None)
    return OptionField(attribute.name, kind, attribute.metadata[_HELP], default, range)


def build(cls: type[T], mapping: Mapping[str, Any], *, name: str) -> T:
    """An instance of an option class from the values that were given.

    Types are strict: a bool is not an int and text is not a number; an int is accepted for a float, a list for a tuple, text for a
    path or an enum, and ``"none"`` for None.

    Args:
        cls: the option class.
        mapping: values by field name; the rest take their defaults.
        name: the component, for messages.

    Raises:
        OptionError: an unknown or missing option, or a value that is not allowed.
    """
    values = check_given(cls, mapping, name=name)
    missing = [field.name for field in option_fields(cls) if field.required and field.name not in mapping]
    if missing:
        msg = f"[{name}] needs a value for {', '.join(map(repr, missing))}"
        raise OptionError(msg)
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        # attrs' validators put the attribute and the value behind the message in args.
        text = " ".join(str(error.args[0] if error.args else error).split())
        msg = f"[{name}] {text}"
        raise OptionError(msg) from error


def check_given(cls: type | None, mapping: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Some options of a component in the types of their fields; values are not compared with what the class allows.

    Args:
        cls: the option class, None for a component without options.
        mapping: values by field name.
        name: the component, for messages.

    Raises:
        OptionError: an option is unknown, or has a value of another type.
    """
    fields = {} if cls is None else {field.name: field for field in option_fields(cls)}
    values = {}
    for key, value in mapping.items():
        if key not in fields:
            raise OptionError(_unknown_option(name, key, list(fields)))
        try:
            values[key] = fields[key].type.check(value)
        except ValueError as error:
            msg = f"[{name}] {key!r} {error}"
            raise OptionError(msg) from None
    return values


def to_dict(instance: Any, only_changed: bool = False) -> dict[str, Any]:
    """The options as JSON-ready data that :func:`build` reads back.

    Args:
        instance: an instance of an option class.
        only_changed: leave out options at their default, so that an option added later changes no identity.
    """
    fields = option_fields(type(instance))
    values = {field.name: getattr(instance, field.name) for field in fields}
    return {field.name: field.type.dump(values[field.name]) for field in fields if not only_changed or values[field.name] != field.default}


def parse_spec(text: str) -> tuple[str, str | None]:
    """Split ``"name"`` or ``"name:value"``.

    Raises:
        OptionError: the name is missing, or there is a colon with nothing behind it.
    """
    name, colon, value = text.strip().partition(":")
    if not name or (colon and not value):
        msg = f"{shown(text)} is not a component; write 'name' or 'name:value'"
        raise OptionError(msg)
    return name, value if colon else None


def spec_options(cls: type | None, value: str, *, name: str) -> dict[str, Any]:
    """What ``"name:value"`` sets: the first option of the class, read from text.

    Args:
        cls: the component's option class.
        value: the text behind the colon.
        name: the component, for messages.

    Raises:
        OptionError: the component has no options, or the text is no value of the first one.
    """
    fields = option_fields(cls) if cls is not None else ()
    if not fields:
        msg = f"[{name}] has no options, so '{name}:{value}' means nothing; write '{name}'"
        raise OptionError(msg)
    try:
        return {fields[0].name: fields[0].type.parse(value)}
    except ValueError as error:
        msg = f"[{name}] {fields[0].name!r} {error}"
        raise OptionError(msg) from None


def _unknown_option(name: str, key: str, known: list[str]) -> str:
    if not known:
        return f"[{name}] has no options, so {key!r} cannot be set"
    return f"[{name}] has no option {key!r}{did_you_mean(close_matches(key, known))} (known: {', '.join(known)})"
