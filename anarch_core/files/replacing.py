"""Files that are either the old one or the whole new one, whenever the process dies."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from anarch_core.errors import RunError
from anarch_core.files.reading import kind


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` that takes its place, synced to the disk, when the block ends without an exception.

    A process that is killed leaves the old file, and perhaps a ``.<name>.<random>.tmp`` beside it, for :func:`remove_leftovers`.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the new directory entry has to reach the disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Replace a file's text: whoever reads it, even after a crash, finds the old text or the new one, whole.

    Raises:
        RunError: a folder stands there.
        OSError: as for :func:`replacing`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind(path) == "a folder":
        msg = f"{path} is a folder; expected a file: move it elsewhere"
        raise RunError(msg)
    with replacing(path) as file:
        file.write(text.encode())


def make_room(path: Path) -> None:
    """Remove what stands at a path; a folder that holds something is renamed to ``<name>.aside.<random>`` instead."""
    if kind(path) != "a folder":
        path.unlink(missing_ok=True)
        return
    try:
        path.rmdir()
    except OSError:
        path.rename(path.with_name(f"{path.name}.aside.{secrets.token_hex(4)}"))


def open_own(path: Path, mode: Literal["r+b", "a+b"]) -> BinaryIO:
    """Open a file to write to that is made if there is none; what is in it stays.

    Args:
        path: the file.
        mode: ``"r+b"`` or ``"a+b"``, as of :func:`open`.

    Raises:
        RunError: a link stands there, which might lead anywhere, or no file.
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | (os.O_APPEND if "a" in mode else 0)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise
        handle = None
    if handle is None or not stat.S_ISREG(os.fstat(handle).st_mode):
        if handle is not None:
            os.close(handle)
        msg = f"{path} is {kind(path)}; expected a file that anarch made: remove it, or choose another directory with --out"
        raise RunError(msg)
    return open(handle, mode)  # noqa: PTH123  # of an open file, for the caller to close
