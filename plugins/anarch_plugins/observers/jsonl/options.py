"""Options of ``jsonl``."""

from __future__ import annotations

from pathlib import Path

import attrs

from anarch_core.plugin import opt

SUFFIX = ".jsonl"


def _lines(_: object, __: object, path: Path) -> None:
    if path.suffix != SUFFIX:
        msg = f"the name of a file of JSON lines ends with {SUFFIX}: {path}"
        raise ValueError(msg)


@attrs.frozen(kw_only=True)
class JsonlOptions:
    """Where the lines go; ``--observe jsonl:log.jsonl`` sets the first option."""

    path: Path = attrs.field(
        default=Path(f"events{SUFFIX}"),
        converter=Path,
        validator=_lines,
        metadata=opt("File to append to, from the run directory."),
    )
