"""The command line as a campaign calls it, and how every call must end."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs

from anarch_core.cli import main

LONGEST = 2000
"""Characters of an error message; what is longer nobody reads."""


@attrs.frozen
class Ended:
    """How a command ended.

    Attributes:
        code: its exit code; negative for a signal.
        out: standard output.
        err: standard error.
    """

    code: int
    out: str
    err: str

    def refused(self, *words: str) -> Ended:
        """It said in a few words what is wrong, these words among them.

        Raises:
            AssertionError: it did not.
        """
        self.told()
        assert self.code in (1, 2), f"exit code {self.code}: {self.err or self.out}"
        for word in words:
            assert word in self.err, f"{word!r} is not in: {self.err}"
        return self

    def done(self) -> Ended:
        """It did what it was asked.

        Raises:
            AssertionError: it did not.
        """
        self.told()
        assert self.code == 0, f"exit code {self.code}: {self.err}"
        return self

    def told(self) -> Ended:
        """It ended by itself and without a traceback, whatever it found.

        Raises:
            AssertionError: it did not.
        """
        assert self.code >= 0, f"died of signal {-self.code}: {self.err}"
        assert "Traceback" not in self.err + self.out, self.err[-400:] or self.out[-400:]
        assert len(self.err) <= LONGEST, f"{len(self.err)} characters: {self.err[:200]}"
        assert self.code == 0 or self.err.strip(), f"exit code {self.code} without a word"
        return self


def here(*arguments: object, folder: Path) -> Ended:
    """``anarch ARGUMENTS`` in this process, in a folder: quick, for what cannot harm a process."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
    return Ended(code, out.getvalue(), err.getvalue())


def apart(*arguments: object, folder: Path, environment: Mapping[str, str] | None = None, seconds: float = 50) -> Ended:
    """``anarch ARGUMENTS`` in a process of its own, in a folder."""
    command = [sys.executable, "-P", "-m", "anarch_core", *map(str, arguments)]
    whole = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    ended = subprocess.run(
        command,
        cwd=folder,
        env=whole,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        timeout=seconds,
        stdin=subprocess.DEVNULL,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
