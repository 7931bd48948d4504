"""What griffe, which reads the code for the API reference, does not know of this house: roles in docstrings, and classes of attrs."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

import griffe

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod|exc):`(~?)([\w.]+)`")


class House(griffe.Extension):
    """Links for roles, code for blocks after ``::``, and the arguments of attrs' classes."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """All that was read."""
        for what in _everything(pkg):
            if what.docstring is not None:
                what.docstring.value = _linked(what.docstring.value, what).replace("::\n", ":\n")
            if isinstance(what, griffe.Class) and _attrs_decorator(what) and "__init__" not in what.members:
                made = griffe.Function("__init__", parameters=griffe.Parameters(*_arguments(what)), parent=what)
                what.set_member("__init__", made)


def _everything(what: griffe.Object) -> Iterator[griffe.Object]:
    yield what
    for member in list(what.members.values()):
        if isinstance(member, griffe.Object):
            yield from _everything(member)


def _linked(text: str, where: griffe.Object) -> str:
    """Roles as references, which are links where what they name is public."""

    def link(match: re.Match[str]) -> str:
        name = match[2]
        try:
            path = where.resolve(name)
        except griffe.NameResolutionError:
            path = name
        return f'<autoref optional identifier="{path}">`{name.rpartition(".")[2] if match[1] else name}`</autoref>'

    return _ROLE.sub(link, text)


def _attrs_decorator(what: griffe.Class) -> str:
    """The decorator that makes a class one of attrs', as code; empty where there is none."""
    return next((str(found.value) for found in what.decorators if re.match(r"attrs\.(frozen|define|mutable)\b", str(found.value))), "")


def _arguments(what: griffe.Class) -> list[griffe.Parameter]:
    """What ``__init__`` takes, that of the base classes first; those with defaults last, as attrs demands."""
    keyword = "kw_only=True" in _attrs_decorator(what)
    found: dict[str, griffe.Parameter] = {"self": griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)}
    for base in what.resolved_bases:
        if isinstance(base, griffe.Class):
            found |= {argument.name: argument for argument in base.parameters}
    for member in what.attributes.values():
        if member.annotation is None or "ClassVar" in str(member.annotation) or "property" in member.labels:
            continue
        options = _field(member.value)
        if options is None or options.get("init") == "False":
            continue
        name = member.name.lstrip("_")
        found[name] = griffe.Parameter(
            name,
            annotation=member.annotation,
            kind=griffe.ParameterKind.keyword_only
            if keyword or options.get("kw_only") == "True"
            else griffe.ParameterKind.positional_or_keyword,
            default=options.get("default"),
        )
    return sorted(found.values(), key=lambda argument: argument.kind is griffe.ParameterKind.keyword_only)


def _field(value: Any) -> dict[str, str] | None:
    """How an attribute of attrs is described, as code; None for one that is not an argument."""
    if value is None:
        return {}
    text = str(value)
    call = ast.parse(text, mode="eval").body
    if not (isinstance(call, ast.Call) and ast.unparse(call.func) in {"attrs.field", "opt"}):
        return {"default": text}
    options = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg}
    if "factory" in options:
        options["default"] = f"{options['factory']}()"
    return options
