"""The run directory: atomic writes, an append-only history, and locks that die with their process."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import attrs

from anarch_core.errors import RunError
from anarch_core.experiment.inventory import Inventory, tensors_digest
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.experiment.segments import Segment
from anarch_core.files.leftovers import remove_leftovers
from anarch_core.files.locks import LOCK, locked
from anarch_core.files.reading import kind
from anarch_core.files.replacing import make_room, open_own
from anarch_core.files.tables import read_table, require_seal, sealed, write_json


@attrs.frozen
class SegmentStore:
    """What one segment leaves on disk.

    Attributes:
        path: its folder.
        writes: whether this process writes there; of several that train a segment together only the first does, and what the others are
            told to write is not written.
    """

    path: Path
    writes: bool = True

    @property
    def description(self) -> Path:
        """What the segment is, as JSON."""
        return self.path / "segment.json"

    @property
    def result_file(self) -> Path:
        """What came out; written last, so a segment is done when it exists."""
        return self.path / "result.json"

    @property
    def history_file(self) -> Path:
        """A row per epoch."""
        return self.path / "history.jsonl"

    @property
    def resume_file(self) -> Path:
        """State from which training goes on to the same bits; removed when the segment is done."""
        return self.path / "resume.safetensors"

    @property
    def final_file(self) -> Path:
        """The trained network."""
        return self.path / "final.safetensors"

    @property
    def average_file(self) -> Path:
        """The average of the weights that training passed through, where one was asked for."""
        return self.path / "average.safetensors"

    @property
    def error_file(self) -> Path:
        """Where in the program it failed."""
        return self.path / "error.txt"

    def snapshot(self, iteration: int) -> Path:
        """The network after ``iteration`` steps."""
        return self.path / "snapshots" / f"{iteration}.safetensors"

    def optimizer_snapshot(self, iteration: int) -> Path:
        """The optimizer's state beside :meth:`snapshot`, for children that carry it over."""
        return self.path / "snapshots" / f"{iteration}.optimizer.safetensors"

    def probe_tensors(self, probe: str, moment: str) -> Path:
        """Arrays a probe measured at ``"start"``, at the ``"end"`` or of the ``"average"``."""
        return self.path / "probes" / f"{probe}-{moment}.safetensors"

    def finished(self) -> tuple[SegmentResult, Inventory | None]:
        """What came out, and what the segment left, which earlier versions did not note.

        Raises:
            RunError: it cannot be read, or was altered.
        """
        table = read_table(self.result_file)
        if "left" in table or "digest" in table:
            require_seal(table, self.result_file)
        left = None if "left" not in table else Inventory.from_json(table["left"], self.result_file)
        return SegmentResult.from_json(table, self.result_file), left

    def finish(self, result: SegmentResult, left: Inventory) -> None:
        """Write down what came out and what is left, after which the segment is done."""
        if self.writes:
            write_json(self.result_file, sealed({**result.to_json(), "left": left.to_json()}))

    def describe(self, description: Mapping[str, Any]) -> None:
        """Write down what the segment is."""
        if self.writes:
            write_json(self.description, description)

    def history(self, size: int) -> History:
        """The history, of which so many bytes count."""
        return History(self.history_file, size, writes=self.writes)

    def drop(self, *paths: Path) -> None:
        """Make room where files of the segment are, or will be."""
        for path in paths if self.writes else ():
            make_room(path)

    def require_own_folders(self) -> None:
        """Refuse folders that are links: what is written there would be written elsewhere.

        Raises:
            RunError: the message names the link.
        """
        if self.path.parent.exists() and not self.path.parent.is_dir():
            msg = f"{self.path.parent} is {kind(self.path.parent) or 'a file'}; expected a folder: move it out of the run directory"
            raise RunError(msg)
        for folder in (self.path.parent, self.path, *self._folders):
            if kind(folder) == "a link":
                msg = f"{folder} is a link, and nothing is written outside the run directory; put the folder itself in its place"
                raise RunError(msg)

    def clear(self) -> None:
        """Let the segment begin anew: without result, saved state and snapshots, so that whoever starts from those waits for new ones."""
        self.drop(self.result_file, self.resume_file, *self.path.glob("snapshots/*.safetensors"))
        self.make_room()

    def make_room(self) -> None:
        """Put aside what stands where files or folders of the segment belong and is none."""
        for folder in (self.path, *self._folders):
            if folder.exists() and not folder.is_dir():
                make_room(folder)
        files = [self.description, self.result_file, self.history_file, self.resume_file, self.error_file]
        networks = [self.final_file, self.average_file, *(path for folder in self._folders for path in folder.glob("*.safetensors"))]
        for path in (*files, *networks):
            if kind(path) is not None:
                make_room(path)

    def remove(self) -> None:
        """Remove the folder and all that is in it."""
        if self.writes:
            shutil.rmtree(self.path, ignore_errors=True)

    @property
    def retraced(self) -> SegmentStore:
        """Where a finished segment is trained again, to reach snapshots that were not kept; removed when they are there."""
        return attrs.evolve(self, path=self.path / "retraced")

    @property
    def _folders(self) -> tuple[Path, ...]:
        return self.path / "snapshots", self.path / "probes", self.retraced.path, self.retraced.path / "snapshots"

    @contextlib.contextmanager
    def lock(self, waiting: Callable[[str], None] = lambda holder: None) -> Iterator[None]:
        """Keep other processes off this segment; waits for one that is just dying, and clears away what it had not finished writing.

        Args:
            waiting: called several times a second while another process holds it, with that process's number; may raise.
        """
        if not self.writes:
            yield
            return
        with locked(self.path / LOCK, wait=True, waiting=waiting):
            remove_leftovers(self.path)
            yield


class History:
    """Rows of a segment's history, one JSON object a line, only ever appended.

    Args:
        path: the file.
        size: bytes that count; what a killed process wrote beyond them is cut off.
        writes: whether this process writes them; otherwise rows are read, and those that come are only remembered.

    Raises:
        RunError: the file is shorter than ``size``, holds something else than rows, or is no file.
    """

    def __init__(self, path: Path, size: int, *, writes: bool = True) -> None:
        self.rows: list[dict[str, Any]] = []
        if not writes:
            self._file: IO[bytes] = io.BytesIO(path.read_bytes()[:size] if size else b"")
            self.rows.extend(_rows(self._file, path))
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open_own(path, "a+b")
        if self._file.seek(0, os.SEEK_END) < size:
            self._file.close()
            msg = f"{path} has lost rows that the saved state counts on; remove the folder {path.parent} to start the segment anew"
            raise RunError(msg)
        self._file.truncate(size)
        self._file.seek(0)
        self.rows.extend(_rows(self._file, path))

    def append(self, row: Mapping[str, float | None]) -> None:
        """Add a row."""
        self.rows.append(dict(row))
        self._file.write(json.dumps(dict(row), allow_nan=False).encode() + b"\n")
        self._file.flush()

    def size(self) -> int:
        """Bytes written, safe on disk where this process writes them."""
        if not isinstance(self._file, io.BytesIO):
            os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _rows(lines: Iterable[bytes], path: Path) -> Iterator[dict[str, float | None]]:
    for line in lines:
        try:
            yield dict(json.loads(line))
        except (TypeError, ValueError, RecursionError) as error:
            msg = f"{path} holds no rows of a history: {error}; remove the folder {path.parent} to start the segment anew"
            raise RunError(msg) from error


@attrs.frozen
class RunStore:
    """A run directory.

    Attributes:
        path: the directory.
        writes: whether this process writes there, see :class:`SegmentStore`.
    """

    path: Path
    writes: bool = True

    @property
    def config_file(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def environment_file(self) -> Path:
        """Versions, host and times."""
        return self.path / "run.json"

    @property
    def results_file(self) -> Path:
        """The results of all finished segments."""
        return self.path / "results.json"

    def segment(self, identity: str) -> SegmentStore:
        """Where the segment of that identity is kept."""
        return SegmentStore(self.path / "segments" / identity, self.writes)

    def snapshot_left(self, segment: Segment) -> Path | None:
        """The snapshot of its parent that a segment starts from; None for a fresh network."""
        if segment.parent is None or segment.leaves is None:
            return None
        return self.segment(segment.parent.id).snapshot(segment.leaves.iteration)

    def stock(self, result: SegmentResult, left: Inventory | None) -> Inventory:
        """What a finished segment has left; where an earlier version did not note it, what is there."""
        if left is not None:
            return left
        files = self.segment(result.id)
        networks = [*files.path.glob("snapshots/*.safetensors"), *files.path.glob("probes/*.safetensors")]
        start = None if result.parent is None else self.segment(result.parent).snapshot(result.parent_iteration or 0)
        digest = None if start is None else tensors_digest(start)
        return Inventory.of(files.path, [files.description, files.history_file, files.final_file, *networks], digest, None)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Keep other runs out of this directory."""
        return locked(self.path / LOCK, wait=False)
