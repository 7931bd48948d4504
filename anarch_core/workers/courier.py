"""Files of segments on their way between two machines, in pieces.

Whoever sends tells how each of its files is now, piece by piece; whoever receives has at any moment every file as it was or as it is,
whole, with the time of its last change, by which an :class:`~anarch_core.experiment.inventory.Inventory` knows it again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import attrs

from anarch_core.bounds import shown
from anarch_core.errors import RunError
from anarch_core.files.reading import kind, reading
from anarch_core.files.replacing import make_room, replacing

if TYPE_CHECKING:
    from anarch_core.experiment.events import Job
    from anarch_core.experiment.store import RunStore, SegmentStore

PIECE = 16 * 2**20
"""Bytes of a file that travel at once: many enough to be fast, few enough to be held several times."""


@attrs.frozen(kw_only=True, eq=False)
class Piece:
    """A stretch of a file of a segment.

    Attributes:
        segment: identity.
        name: of the file, below the segment's folder, as in ``"snapshots/40.safetensors"``.
        data: the bytes, uint8 [n]; None where the file is gone.
        start: where they stand in the file.
        size: bytes of the whole file.
        modified: when it was written, in nanoseconds.
    """

    segment: str
    name: str
    data: Any = None
    start: int = 0
    size: int = 0
    modified: int = 0


def pieces(store: RunStore, segment: str, name: str) -> Iterator[Piece]:
    """A file of a segment, piece by piece; an empty one is one piece.

    Raises:
        RunError: it is no regular file, or becomes shorter meanwhile.
        OSError: it cannot be read.
    """
    import numpy

    path = store.segment(segment).path / name
    with reading(path, follow=False) as file:
        found = os.fstat(file.fileno())
        start = 0
        while True:
            data = numpy.fromfile(file, dtype=numpy.uint8, count=min(PIECE, found.st_size - start))
            if not data.size and start < found.st_size:
                msg = f"{path} became shorter while it was read: something else writes to it"
                raise RunError(msg)
            yield Piece(segment=segment, name=name, data=data, start=start, size=found.st_size, modified=found.st_mtime_ns)
            start += data.size
            if start >= found.st_size:
                return


def names(files: SegmentStore) -> list[str]:
    """The files of a segment, all but what is hidden: locks, and what is not finished being written."""
    found = []
    for folder, folders, leaves in os.walk(files.path):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = PurePosixPath(Path(folder).relative_to(files.path))
        found += [(below / name).as_posix() for name in leaves if not name.startswith(".") and kind(Path(folder) / name) is None]
    return sorted(found)


def brought(store: RunStore, job: Job) -> Iterator[Piece]:
    """All that training a segment reads: the snapshot that it starts from, networks that it is compared with, and what it has left so far.

    Raises:
        RunError: a file is none, or changes meanwhile.
        OSError: it cannot be read.
    """
    segment = job.segment
    if segment.parent is not None and segment.leaves is not None:
        parent, iteration = store.segment(segment.parent.id), segment.leaves.iteration
        carried = [parent.optimizer_snapshot(iteration)] * (segment.transition.optimizer_state == "carry")
        for path in (parent.snapshot(iteration), *carried):
            yield from pieces(store, segment.parent.id, path.relative_to(parent.path).as_posix())
    for other in job.companions.values():
        files = store.segment(other.id)
        networks = [files.final_file, *(snapshot for at in sorted(job.keep) if (snapshot := files.snapshot(at)).exists())]
        for path in networks:
            yield from pieces(store, other.id, path.relative_to(files.path).as_posix())
    own = store.segment(segment.id)
    if own.result_file.exists() or own.resume_file.exists():  # else nothing counts of what may be there
        for name in names(own):
            if name != own.error_file.name:
                yield from pieces(store, segment.id, name)


class Desk:
    """Puts the files of one sender where they belong; each takes the place of the old one when its last piece is there.

    Args:
        store: the run directory.
        segments: whose files they may be; nothing else is written, whatever the sender says.
    """

    def __init__(self, store: RunStore, segments: Collection[str]) -> None:
        self._store, self._segments = store, frozenset(segments)
        self._open: _Arriving | None = None

    def take(self, piece: Piece) -> None:
        """Write a piece; those of a file come in order, and no other between them.

        Raises:
            RunError: it is none of those segments' files, does not follow the one before, or leads through a link.
            OSError: it cannot be written; the file is as it was.
        """
        path = self._place(piece)
        if piece.data is None:
            self.drop()
            make_room(path)
            self._remove_empty(path.parent, self._store.segment(piece.segment).path)
            return
        if piece.start == 0:
            self.drop()
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open = _Arriving(path, piece)
        elif self._open is None or not self._open.goes_on_with(path, piece):
            self.drop()
            msg = f"a piece of {piece.name} at byte {piece.start:,} came without those before it"
            raise RunError(msg)
        try:
            if self._open.took(piece):
                self._open = None
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Forget what has not come whole, as when the sender is gone; files are as they were."""
        if self._open is not None:
            arriving, self._open = self._open, None
            arriving.give_up()

    def _remove_empty(self, folder: Path, last: Path) -> None:
        with contextlib.suppress(OSError):
            while folder != last:
                folder.rmdir()
                folder = folder.parent

    def _place(self, piece: Piece) -> Path:
        """Where a file belongs."""
        parts = PurePosixPath(piece.name).parts
        strange = not parts or piece.name != "/".join(parts) or any(part.startswith((".", "/")) or "\0" in part for part in parts)
        if strange or piece.segment not in self._segments:
            msg = f"a file came that does not belong here: {shown(piece.name)} of segment {shown(piece.segment)}"
            raise RunError(msg)
        files = self._store.segment(piece.segment)
        files.require_own_folders()
        path = files.path.joinpath(*parts)
        for folder in path.parents[: len(parts) - 1]:
            if kind(folder) is not None and kind(folder) != "a folder":
                msg = f"{folder} is {kind(folder)}, and nothing is written outside the run directory; put a folder in its place"
                raise RunError(msg)
        return path


class _Arriving:
    """A file that is not whole yet, beside the one whose place it takes."""

    def __init__(self, path: Path, first: Piece) -> None:
        self._path, self._size, self._modified, self._at = path, first.size, first.modified, 0
        self._block = contextlib.ExitStack()
        self._file: BinaryIO = self._block.enter_context(replacing(path))

    def goes_on_with(self, path: Path, piece: Piece) -> bool:
        return (path, piece.size, piece.modified, piece.start) == (self._path, self._size, self._modified, self._at)

    def took(self, piece: Piece) -> bool:
        """Write; whether the file is whole now, and in its place."""
        self._at += self._file.write(memoryview(piece.data))
        if self._at < self._size:
            return False
        if kind(self._path) is not None:
            make_room(self._path)
        self._file.flush()
        os.utime(self._file.fileno(), ns=(self._modified, self._modified))
        self._block.close()
        return True

    def give_up(self) -> None:
        with contextlib.suppress(_GivenUpError), self._block:
            raise _GivenUpError


class _GivenUpError(Exception):
    """A file will not be whole."""
