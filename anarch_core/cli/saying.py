"""``--quiet`` and ``--json``: how much a command says, and in which form."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import attrs
import click

F = TypeVar("F", bound=Callable[..., Any])

DOCUMENTED = ("run", "resume", "report", "runs")
"""Commands whose ``--json`` prints one document, whatever happens."""

_QUIET = ("quiet", "-q", "--quiet")
_JSON = ("as_json", "--json")
_HELP = {"quiet": "Print nothing but errors.", "as_json": "Print one JSON object, also where it fails; all else goes to standard error."}


@attrs.frozen
class Saying:
    """What the user wants to be told.

    Attributes:
        quiet: nothing but errors.
        as_json: one JSON document on standard output.
    """

    quiet: bool = False
    as_json: bool = False

    @property
    def progress(self) -> Literal["auto", "silent"]:
        """What to show while it works."""
        return "silent" if self.quiet else "auto"

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Inside, warnings are not shown to who wants quiet, and nothing but the document comes to standard output where one is wanted."""
        from anarch_core.plugin.guard import output_kept

        with warnings.catch_warnings(), output_kept() if self.as_json else contextlib.nullcontext():
            if self.quiet:
                warnings.simplefilter("ignore")
            yield


def saying_options() -> list[click.Parameter]:
    """The flags, for a command that is built."""
    return [click.Option([name, *flags], is_flag=True, help=_HELP[name]) for name, *flags in (_QUIET, _JSON)]


def takes_saying(command: F) -> F:
    """The flags, for a command that is decorated."""
    for name, *flags in (_JSON, _QUIET):
        command = click.option(name, *flags, is_flag=True, help=_HELP[name])(command)
    return command


def document(content: dict[str, Any]) -> None:
    """Print it."""
    click.echo(json.dumps(content, indent=2, allow_nan=False))


def wants_document(args: Sequence[str] | None) -> bool:
    """Whether a command line asks for a document, however wrong the rest of it is."""
    given = list(sys.argv[1:] if args is None else args)
    command = next((arg for arg in given if not arg.startswith("-")), "")
    return command in DOCUMENTED and "--json" in given


def failure(code: int, text: str) -> None:
    """Print the document of a command that came to nothing."""
    with contextlib.suppress(OSError):  # the reader may be what has gone
        document({"status": "interrupted" if code == 130 else "error", "exit_code": code, "error": text})
