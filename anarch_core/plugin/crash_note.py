"""A note on disk of what is being imported, by which the next start names a plugin that crashed the interpreter.

Only a crash is held against a plugin: a signal that a fault in native code raises, or ``os._exit``, leaves its mark in the note. A process
that is killed or interrupted leaves none.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import platform
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

_LONGEST = 1 << 16
_FAULT = "Fatal Python error: "
_LEFT = "left by os._exit("


def folder() -> Path:
    """Where notes are kept: ``anarch/importing`` in ``$XDG_STATE_HOME``, which is ``~/.local/state`` where it is not set."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "anarch" / "importing"


class CrashNote:
    """The note of this process; none where the folder cannot be written to.

    Making it tells, by a warning, of plugins that crashed an earlier process of this machine, and forgets that.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._pid = os.getpid()
        self._faults = False
        with contextlib.suppress(OSError, RuntimeError, ImportError):  # no home, read-only, no locks
            self._begin()

    def _begin(self) -> None:
        import fcntl

        where, host = folder(), platform.node() or "localhost"
        where.mkdir(parents=True, exist_ok=True)
        for path in where.glob(f"{host}-*"):
            _tell(path)
        self._path = where / f"{host}-{self._pid}"
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @contextlib.contextmanager
    def of(self, name: str, owner: str) -> Iterator[None]:
        """Note that a plugin is being imported, as long as it is."""
        if self._file is None:
            yield
            return
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"{name}\n{owner}\n".encode())
        if not faulthandler.is_enabled():
            faulthandler.enable(self._file, all_threads=False)
            self._faults = True
        leave = os._exit
        os._exit = self._leaving(leave)  # type: ignore[assignment]
        try:
            yield
        finally:
            os._exit = leave
            if self._faults:
                faulthandler.disable()
                self._faults = False

    def close(self) -> None:
        """Nothing is imported any more."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
            self._file.close()
            self._file = None

    def _leaving(self, leave: Callable[[int], NoReturn]) -> Callable[[int], NoReturn]:
        def left(status: int) -> NoReturn:
            if self._file is not None and os.getpid() == self._pid:  # a child that was forked may well leave like that
                with contextlib.suppress(Exception):
                    self._file.write(f"{_LEFT}{status})\n".encode())
            leave(status)

        return left


def _tell(path: Path) -> None:
    """Warn of what a note says, unless its process is still there, and remove it."""
    import fcntl

    with contextlib.suppress(OSError, ValueError):
        with os.fdopen(os.open(path, os.O_RDWR | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)), "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lines = file.read(_LONGEST).decode(errors="replace").splitlines()
            path.unlink()
        how = _how(lines[2:])
        if how:
            _warn(lines[0], lines[1], how)


def _how(lines: list[str]) -> str:
    for line in lines:
        if line.startswith(_FAULT):
            return f"crashed the interpreter ({line.removeprefix(_FAULT)})"
        if line.startswith(_LEFT):
            return f"ended the program by os._exit({line.removeprefix(_LEFT)}"
    return ""


def _warn(name: Any, owner: Any, how: str) -> None:
    from anarch_core.errors import plain

    name = plain(name, 100)
    text = (
        f"plugin {name!r} ({plain(owner, 100)}) {plain(how, 100)} when it was last imported; ANARCH_DISABLE_PLUGINS={name} leaves it out, "
        f"'anarch plugins doctor {name}' looks at it in a process of its own"
    )
    warnings.warn(text, stacklevel=2)
