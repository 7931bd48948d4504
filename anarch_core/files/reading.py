"""Files of others, read with care: regular ones, not longer than they can be."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from anarch_core.errors import RunError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
}

LONGEST_TEXT = 256 * 2**20
"""Bytes of text that are read of one file: no run writes as much."""


def kind(path: Path) -> str | None:
    """What stands at a path where a file is expected: ``"a folder"``, ``"a link"`` (not followed), ...; None for a file, or nothing.

    Raises:
        OSError: a folder on the way cannot be looked into.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "no regular file")


@contextlib.contextmanager
def reading(path: Path, *, follow: bool = True) -> Iterator[BinaryIO]:
    """Open a regular file; a pipe, a device or a folder is refused at once, without waiting for what it may never say.

    Args:
        path: the file.
        follow: whether it may be a link to one elsewhere.

    Raises:
        RunError: it is something else.
        OSError: it cannot be opened.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    with open(path, "rb", opener=lambda name, _: _regular(name, flags)) as file:  # Path.open has no opener
        yield file


def _regular(path: str, flags: int) -> int:
    """Descriptor of a regular file. Whoever is given it closes it: two that might are interrupted between, and close another's file."""
    handle = os.open(path, flags)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            msg = f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}; expected a file"
            raise RunError(msg)
    except BaseException:
        os.close(handle)
        raise
    return handle


def read_text(path: Path, *, at_most: int = LONGEST_TEXT) -> str:
    """Read a regular file of text.

    Args:
        path: the file.
        at_most: bytes; a longer one is not read.

    Raises:
        RunError: it cannot be read, is longer, or is not UTF-8.
    """
    try:
        with reading(path) as file:
            content = file.read(at_most + 1)
            if len(content) > at_most:
                msg = f"{path} has more than {at_most:,} bytes, which is too long for what is expected there"
                raise RunError(msg)
            return content.decode()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror or error}"
        raise RunError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"cannot read {path}: not UTF-8 text ({error.reason} at byte {error.start})"
        raise RunError(msg) from error
