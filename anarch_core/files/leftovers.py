"""What killed processes leave: unfinished writes and locks."""

from __future__ import annotations

import re
from pathlib import Path

from anarch_core.files.locks import LOCK
from anarch_core.files.reading import kind

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")


def remove_leftovers(folder: Path, *, below: bool = True) -> None:
    """Delete what killed processes left of unfinished writes in a folder that no other process writes to, and below it if so asked."""
    for path in folder.glob("**/.*.tmp" if below else ".*.tmp"):
        if kind(path) is None:
            path.unlink(missing_ok=True)


def only_leftovers(folder: Path) -> bool:
    """Whether a folder, and all below, holds nothing but what killed processes left: unfinished writes and locks."""
    for path in folder.rglob("*"):
        folder_of_ours = path.is_dir() and not path.is_symlink()
        if not (folder_of_ours or path.name == LOCK or _UNFINISHED.fullmatch(path.name)):
            return False
    return True
