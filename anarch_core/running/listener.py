"""A stream whose reader may go."""

from __future__ import annotations

import contextlib
import io
from typing import TextIO


class Listener(io.TextIOBase):
    """A stream whose reader may go: a terminal that is closed, or the end of a pipe, is no reason to end a run.

    Args:
        stream: what is written to as long as that works.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or not."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or not."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """As the stream."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """As the stream."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As the stream."""
        return self._stream.encoding
