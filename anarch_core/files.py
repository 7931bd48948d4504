"""Files that are either the old one or the whole new one, whenever the process dies; files of others, read with care; locks; JSON."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from anarch_core.errors import RunError

_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}

LONGEST_TEXT = 256 * 2**20
"""Bytes of text that are read of one file: no run writes as much."""


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


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left of unfinished writes in a folder and below; for a folder that no other process writes to."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def canonical_json(obj: Any) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_text(path: Path, text: str) -> None:
    """Replace a file's text: whoever reads it, even after a crash, finds the old text or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically.

    Raises:
        ValueError: a number is not finite.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


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
    handle = os.open(path, flags)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            msg = f"{path} is {_KINDS.get(stat.S_IFMT(mode), 'no regular file')}; expected a file"
            raise RunError(msg)
        file = os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise
    with file:
        yield file


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
                msg = f"{path} has more than {at_most / 1e6:.0f} MB; expected a file that anarch wrote"
                raise RunError(msg)
            return content.decode()
    except (OSError, ValueError) as error:
        msg = f"cannot read {path}: {error}"
        raise RunError(msg) from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: it cannot be read.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"cannot read {path}: {error}"
        raise RunError(msg) from error


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a file's lock. The operating system frees it when the process ends, however it ends.

    Raises:
        RunError: another process holds it, and ``wait`` is False.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"{path.parent} is in use by another process; wait for it, or choose another directory with --out"
            raise RunError(msg) from None
        yield
