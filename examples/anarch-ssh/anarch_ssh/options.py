"""Options of ``ssh``."""

from __future__ import annotations

import re
import shlex
from typing import Any

import attrs

from anarch_core.plugin import opt

MOST = 64
"""Processes on one machine."""

_HOST = re.compile(r"(?P<name>[^\s*,-][^\s*,]*)(?:\*(?P<count>[1-9][0-9]?))?")


def processes(hosts: tuple[str, ...]) -> list[str]:
    """The machine of each process.

    Raises:
        ValueError: one is no name, or has too many.
    """
    found = []
    for host in hosts:
        named = _HOST.fullmatch(host)
        count = int(named["count"] or 1) if named else 0
        if named is None or count > MOST:
            msg = f"{host!r} is no machine; expected a name as ssh knows it, and how many processes (at most {MOST}): node1, me@node2*4"
            raise ValueError(msg)
        found += [named["name"]] * count
    return found


def _hosts(_: object, __: object, value: tuple[str, ...]) -> None:
    if not processes(value):
        msg = "'hosts' is empty; name machines as ssh knows them, separated by commas"
        raise ValueError(msg)


def _by(_: object, __: object, value: str) -> None:
    try:
        words = shlex.split(value)
    except ValueError as error:
        msg = f"'by' must be a command as a shell takes it ({error}): {value!r}"
        raise ValueError(msg) from error
    if not any("{host}" in word for word in words):
        msg = f"'by' must have {{host}} where the machine's name belongs: {value!r}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class SshOptions:
    """Which machines, and how a process gets there; ``--workers ssh:node1`` names one of them."""

    hosts: tuple[str, ...] = attrs.field(
        converter=tuple, validator=_hosts, metadata=opt("Machines as ssh knows them, each with a process, or with several: node1,node2*4.")
    )
    by: str = attrs.field(
        default="ssh -o BatchMode=yes -o ServerAliveInterval=15 {host}",
        validator=_by,
        metadata=opt("What starts a command on {host}."),
    )
    python: str = attrs.field(default="python3", metadata=opt("Python there, which has anarch and this plugin."))

    def command(self, host: str) -> list[str]:
        """What starts a process on a machine."""
        words: list[Any] = [word.replace("{host}", host) for word in shlex.split(self.by)]
        return [*words, self.python, "-P", "-m", "anarch_ssh.host"]
