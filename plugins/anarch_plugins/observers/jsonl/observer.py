"""One line of JSON per event, appended to a file that every process of the run goes on with."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from anarch_core.errors import RunError
from anarch_core.observer import (
    AbstractObserver,
    EpochDone,
    Event,
    Measured,
    RunBegun,
    SegmentEvent,
    SegmentFinished,
    SegmentsPlanned,
    SwitchFound,
)

LEFT_OUT = ("time", "earlier", "units")
"""What two lines may differ in that say the same; units are not told again."""

FACTS = (SegmentsPlanned, EpochDone, Measured, SwitchFound, SegmentFinished)
"""What is so once and for all; the other events are of their moment."""


class JsonlObserver(AbstractObserver):
    """Writes what happens, each fact once.

    What is told again when a run is gone on with, see :mod:`anarch_core.observer.events`, is written only if it is not there yet. A last
    line that a killed process did not finish is taken away.
    """

    _file: BinaryIO | None = None

    def observe(self, event: Event) -> None:
        """Write a line, unless it is there.

        Raises:
            RunError: the file holds something else, or is none.
        """
        if isinstance(event, RunBegun):
            self._open(Path(event.path) / self.options.path.expanduser())
        if self._file is None:
            return
        line = event.to_json()
        digest = _digest(line)
        again = isinstance(event, FACTS) or (isinstance(event, SegmentEvent) and event.earlier)
        if again and digest in self._written:
            return
        self._written.add(digest)
        self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _open(self, path: Path) -> None:
        """Read what is there, and go on after its last whole line."""
        self._file, self._written = _opened(path), set[bytes]()
        whole = self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            try:
                self._written.add(_digest(json.loads(line)))
            except (ValueError, TypeError, RecursionError):
                msg = f"{path} holds something else than events, and nothing is appended to it; choose another file with --jsonl-path"
                raise RunError(msg) from None
            whole += len(line)
        self._file.truncate(whole)


def _opened(path: Path) -> BinaryIO:
    """A file to append to, unbuffered, so that a line is on its way when it is told.

    Raises:
        RunError: a link stands there, which might lead anywhere, or no file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        msg = f"{path} is no file of its own, and nothing is appended to it; choose another with --jsonl-path"
        raise RunError(msg)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    return os.fdopen(handle, "a+b", buffering=0)


def _digest(line: dict[str, Any]) -> bytes:
    """Of what a line says.

    Raises:
        ValueError: it is no event.
    """
    if not isinstance(line, dict) or "event" not in line:
        msg = "no event"
        raise ValueError(msg)
    said = {key: value for key, value in line.items() if key not in LEFT_OUT}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()[:16]
