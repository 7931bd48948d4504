"""What workers have started, and what of it has not ended."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from anarch_core.testing.patience import AT_ONCE

MARK = "ANARCH_CONFORMANCE"
"""Variable of the environment by which processes are found that workers start, whoever their parents are by then."""


class Marked:
    """Processes that are started inside, by whomever: they inherit a variable of the environment.

    It is not to be seen in children of this process that run no program of their own, or none yet: those are told by when they appear.
    """

    def __init__(self) -> None:
        self._value = secrets.token_hex(8)
        self._threads = set(threading.enumerate())
        self._children = set(_children())

    def __enter__(self) -> Marked:
        os.environ[MARK] = self._value
        return self

    def __exit__(self, *_: object) -> None:
        os.environ.pop(MARK, None)

    def processes(self) -> dict[int, str]:
        """Their numbers, with the commands that they run."""
        if not Path("/proc/self/environ").exists():
            pytest.skip("processes are counted in /proc, which this system does not have")
        mark, found = f"{MARK}={self._value}".encode(), {}
        children = set(_children()) - self._children
        for folder in Path("/proc").glob("[0-9]*"):
            number = int(folder.name)
            with contextlib.suppress(OSError):  # it ended, or is another user's
                if number in children or (number != os.getpid() and mark in (folder / "environ").read_bytes().split(b"\0")):
                    command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    found[number] = command or f"number {number}"  # which is about to run its program
        return found

    def left(self) -> list[str]:
        """What has not ended after some seconds: commands, and threads that would keep this process from ending."""
        end = time.monotonic() + AT_ONCE
        while True:
            threads = [thread.name for thread in threading.enumerate() if thread not in self._threads and not thread.daemon]
            found = [*(f"process {command!r:.100}" for command in self.processes().values()), *(f"thread {name!r}" for name in threads)]
            if not found or time.monotonic() > end:
                return found
            time.sleep(0.1)


def _children() -> Iterator[int]:
    """Processes that this one has started and that have not ended."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if int(parent) == os.getpid() and state not in "ZX":
                yield int(folder.name)
