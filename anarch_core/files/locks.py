"""Locks that keep other processes out of a folder and die with the process that holds them.

Some file systems of clusters have none (NFS, Lustre and GPFS, by how they were mounted). There the lock of a file in this machine's
temporary folder stands in for it, which keeps out what runs on this machine; of other machines only what they wrote is known.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from anarch_core.errors import RunError
from anarch_core.files.replacing import open_own

LOCK = ".lock"
"""Name of a file whose lock keeps other processes out of its folder."""

WAIT = 0.1
"""Seconds between two looks at a lock that another process holds."""

NONE_HERE = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)
"""What file systems without locks answer."""


@contextlib.contextmanager
def locked(path: Path, *, wait: bool, waiting: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
    """Hold a file's lock. The operating system frees it when the process ends, however it ends.

    Args:
        path: the file; the holder's process number and its machine are written into it.
        wait: whether to wait while another process holds it. Who does not is warned where the file system has no locks.
        waiting: called several times a second meanwhile with its number, ``"17"``, or ``"17 on n2"`` where it is on another machine;
            empty if that is not known. May raise.

    Raises:
        RunError: another process holds it, and ``wait`` is False; or it is a link or no file.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(open_own(path, "r+b"))
            places = [(path, file)]
            try:
                if not _take(file):
                    stand_in = _stand_in(file)
                    places.append((stand_in, stack.enter_context(open_own(stand_in, "r+b"))))
                    _take(places[-1][1])
            except BlockingIOError:
                holder = _holder(file)
                if not wait:
                    process = f"another process ({holder})" if holder else "another process"
                    msg = f"{path.parent} is in use by {process}; wait for it, or choose another directory with --out"
                    raise RunError(msg) from None
                waiting(holder)
                time.sleep(WAIT)
                continue
            if not all(_is(*place) for place in places):  # who held it took the file away
                continue
            if len(places) > 1:
                if not wait:
                    _warn(path.parent, _holder(file))
                stack.callback(places[-1][0].unlink, missing_ok=True)
                stack.callback(file.truncate, 0)
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()} {os.uname().nodename}\n".encode())
            file.flush()
            yield
            return


def _take(file: BinaryIO) -> bool:
    """Whether the file's lock is held now; False where there are no locks.

    Raises:
        BlockingIOError: another process holds it.
    """
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NONE_HERE:
            raise
        return False
    return True


def _stand_in(file: BinaryIO) -> Path:
    """A file of this machine whose lock stands for that of a file which cannot be locked."""
    status = os.fstat(file.fileno())
    return Path(tempfile.gettempdir()) / f"anarch-{os.getuid()}-{status.st_dev:x}-{status.st_ino:x}.lock"


def _holder(file: BinaryIO) -> str:
    """Who wrote that it holds a lock: its number, and its machine if that is another one; empty if that cannot be read."""
    file.seek(0)
    number, _, host = file.read(300).decode(errors="replace").strip().partition(" ")
    if not number.isdecimal():
        return ""
    return number if host in ("", os.uname().nodename) else f"{number} on {host}"


def _warn(folder: Path, before: str) -> None:
    text = f"the file system of {folder} has no locks, so a run on another machine would not be kept out of it"
    if " on " in before:
        text += f"; process {before} was at work in it when last heard of"
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def _is(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
