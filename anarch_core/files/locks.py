"""Locks that keep other processes out of a folder and die with the process that holds them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from anarch_core.errors import RunError
from anarch_core.files.replacing import open_own

LOCK = ".lock"
"""Name of a file whose lock keeps other processes out of its folder."""

WAIT = 0.1
"""Seconds between two looks at a lock that another process holds."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool, waiting: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Hold a file's lock. The operating system frees it when the process ends, however it ends.

    Args:
        path: the file; the holder's process number is written into it.
        wait: whether to wait while another process holds it.
        waiting: called several times a second meanwhile with its number, empty if that is not known; may raise.

    Raises:
        RunError: another process holds it, and ``wait`` is False; or it is a link or no file.
    """
    import fcntl

    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open_own(path, "r+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = file.read(20).decode(errors="replace").strip()
                if not wait:
                    process = f"another process ({holder})" if holder.isdecimal() else "another process"
                    msg = f"{path.parent} is in use by {process}; wait for it, or choose another directory with --out"
                    raise RunError(msg) from None
                waiting(holder)
                time.sleep(WAIT)
                continue
            if not _is(path, file):  # who held it took the file away
                continue
            file.truncate(0)
            file.write(f"{os.getpid()}\n".encode())
            file.flush()
            yield
            return


def _is(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
