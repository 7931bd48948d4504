"""Files that are either the old one or the whole new one, whenever the process dies; files of others, read with care; locks; JSON."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import reprlib
import secrets
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal

from anarch_core.errors import RunError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a link",
}

LOCK = ".lock"
"""Name of a file whose lock keeps other processes out of its folder."""

WAIT = 0.1
"""Seconds between two looks at a lock that another process holds."""

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")

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


def remove_leftovers(folder: Path, *, below: bool = True) -> None:
    """Delete what killed processes left of unfinished writes in a folder that no other process writes to, and below it if so asked."""
    for path in folder.glob("**/.*.tmp" if below else ".*.tmp"):
        if kind(path) is None:
            path.unlink(missing_ok=True)


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


def make_room(path: Path) -> None:
    """Remove what stands at a path; a folder that holds something is renamed to ``<name>.aside.<random>`` instead."""
    if kind(path) != "a folder":
        path.unlink(missing_ok=True)
        return
    try:
        path.rmdir()
    except OSError:
        path.rename(path.with_name(f"{path.name}.aside.{secrets.token_hex(4)}"))


def only_leftovers(folder: Path) -> bool:
    """Whether a folder, and all below, holds nothing but what killed processes left: unfinished writes and locks."""
    for path in folder.rglob("*"):
        folder_of_ours = path.is_dir() and not path.is_symlink()
        if not (folder_of_ours or path.name == LOCK or _UNFINISHED.fullmatch(path.name)):
            return False
    return True


def canonical_json(obj: Any) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


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


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically.

    Raises:
        ValueError: a number is not finite.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def sealed(table: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON table with a digest of itself under ``"digest"``, by which :func:`require_seal` sees what was altered.

    Raises:
        ValueError: a number is not finite.
    """
    return {**table, "digest": _digest(json.loads(json.dumps(table)))}  # as it is read back: keys are texts then


def require_seal(table: Mapping[str, Any], path: Path) -> None:
    """Refuse a table that was read from a file and is not the one that :func:`sealed` gave.

    Raises:
        RunError: it was altered.
    """
    content = {key: value for key, value in table.items() if key != "digest"}
    try:
        whole = table.get("digest") == _digest(content)
    except (ValueError, RecursionError):  # it holds what is never written
        whole = False
    if not whole:
        msg = f"{path} was altered: its content does not match its digest"
        raise RunError(msg)


def _digest(content: Any) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


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
                msg = f"{path} has more than {at_most:,} bytes, which is too long for what is expected there"
                raise RunError(msg)
            return content.decode()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror or error}"
        raise RunError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"cannot read {path}: not UTF-8 text ({error.reason} at byte {error.start})"
        raise RunError(msg) from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: it cannot be read, or holds numbers that are not finite.
    """
    text = read_text(path)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        msg = f"cannot read {path}: {error}"
        raise RunError(msg) from error


def _refuse_constant(name: str) -> None:
    msg = f"{name} is no number of JSON"
    raise ValueError(msg)


def read_table(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a table.

    Raises:
        RunError: it cannot be read, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        msg = f"{path} is not what anarch wrote: expected a table, got {in_short(content)}"
        raise RunError(msg)
    return content


def in_short(content: Any) -> str:
    """What a file holds, for a message: however deep or long it is, 80 characters at most."""
    return f"{reprlib.repr(content):.80}"


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
