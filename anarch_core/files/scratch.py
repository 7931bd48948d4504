"""A folder for what a process needs while it lives, which the next one removes if it could not do so itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from anarch_core.errors import RunError
from anarch_core.files.locks import LOCK, locked

YOUNG = 60.0
"""Seconds for which nobody takes a folder for a dead process's; it may just not be locked yet."""


@contextlib.contextmanager
def scratch(name: str, *, within: Path | None = None) -> Iterator[Path]:
    """A new folder, locked as long as this process lives, and removed at the end.

    Folders of that name whose process was killed are removed, too.

    Args:
        name: what it begins with.
        within: where it is to be; among the temporary ones of the machine (``TMPDIR``) if not given.

    Raises:
        OSError: there is no place for temporary files.
    """
    within = within or Path(tempfile.gettempdir())
    for path in within.glob(f"{name}-*"):
        with contextlib.suppress(OSError, RunError):
            _remove_abandoned(path)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=within))
    try:
        with locked(folder / LOCK, wait=False):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(path: Path) -> None:
    found = path.lstat()
    if found.st_uid == os.getuid() and path.is_dir() and not path.is_symlink() and time.time() - found.st_mtime > YOUNG:
        with locked(path / LOCK, wait=False):
            shutil.rmtree(path, ignore_errors=True)
