"""What a run is shown by, where it is started."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Literal, TextIO, cast

from anarch_core.bounds import shown
from anarch_core.errors import ConfigError
from anarch_core.running.bars import Bars
from anarch_core.running.listener import Listener
from anarch_core.running.notebook import NotebookDisplay, in_notebook
from anarch_core.running.progress import AbstractProgress, Lines, Silent

ProgressStyle = Literal["auto", "bars", "notebook", "lines", "silent"]

UNABLE = ("dumb", "unknown")
"""Terminals on which nothing can be drawn twice."""


def make_progress(style: ProgressStyle = "auto") -> AbstractProgress:
    """Bars on a terminal that can draw them, a display in a notebook, else lines; or what is asked for.

    Raises:
        ConfigError: it is something else.
    """
    if style == "auto":
        style = "notebook" if in_notebook() else "bars" if sys.stderr.isatty() and os.environ.get("TERM") not in UNABLE else "lines"
    if style == "bars":
        from rich.console import Console

        return Bars(Console(file=cast("TextIO", Listener(sys.stderr))))
    made: Callable[[], AbstractProgress] | None = {"notebook": NotebookDisplay, "lines": Lines, "silent": Silent}.get(style)
    if made is None:
        msg = f"progress: expected auto, bars, notebook, lines, silent or an AbstractProgress, got {shown(style)}"
        raise ConfigError(msg)
    return made()
