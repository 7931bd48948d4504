"""The run directory: atomic writes, an append-only history, and locks that die with their process."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import attrs

from anarch_core.errors import RunError
from anarch_core.experiment.segment_result import SegmentResult
from anarch_core.files import locked, read_json, remove_leftovers


@attrs.frozen
class SegmentStore:
    """What one segment leaves on disk.

    Attributes:
        path: its folder.
    """

    path: Path

    @property
    def description(self) -> Path:
        """What the segment is, as JSON."""
        return self.path / "segment.json"

    @property
    def result_file(self) -> Path:
        """What came out; written last, so a segment is done when it exists."""
        return self.path / "result.json"

    @property
    def resume_file(self) -> Path:
        """State from which training goes on to the same bits; removed when the segment is done."""
        return self.path / "resume.safetensors"

    @property
    def final_file(self) -> Path:
        """The trained network."""
        return self.path / "final.safetensors"

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
        """Arrays a probe measured at ``"start"`` or ``"end"``."""
        return self.path / "probes" / f"{probe}-{moment}.safetensors"

    @property
    def done(self) -> bool:
        """Whether the segment is finished."""
        return self.result_file.exists()

    def result(self) -> SegmentResult:
        """What came out.

        Raises:
            RunError: it cannot be read.
        """
        return SegmentResult.from_json(read_json(self.result_file), self.result_file)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes off this segment; waits for one that is just dying, and clears away what it had not finished writing."""
        with locked(self.path / ".lock", wait=True):
            remove_leftovers(self.path)
            yield


class History:
    """Rows of a segment's history, one JSON object a line, only ever appended.

    Args:
        path: the file.
        size: bytes that count; what a killed process wrote beyond them is cut off.

    Raises:
        RunError: the file is shorter than ``size``.
    """

    def __init__(self, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        self._file: IO[bytes] = path.open("a+b")
        if self._file.seek(0, os.SEEK_END) < size:
            self._file.close()
            msg = f"{path} has lost rows that the saved state counts on; remove the folder {path.parent} to start the segment anew"
            raise RunError(msg)
        self._file.truncate(size)
        self._file.seek(0)
        self.rows.extend(json.loads(line) for line in self._file)

    def append(self, row: Mapping[str, float | None]) -> None:
        """Add a row."""
        self.rows.append(dict(row))
        self._file.write(json.dumps(dict(row), allow_nan=False).encode() + b"\n")
        self._file.flush()

    def size(self) -> int:
        """Bytes written, safe on disk."""
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@attrs.frozen
class RunStore:
    """A run directory.

    Attributes:
        path: the directory.
    """

    path: Path

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
        return SegmentStore(self.path / "segments" / identity)

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """Keep other runs out of this directory."""
        return locked(self.path / ".lock", wait=False)
