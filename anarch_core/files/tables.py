"""JSON: canonical, written whole, read with care, and sealed by a digest of itself."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anarch_core.errors import RunError
from anarch_core.files.reading import read_text
from anarch_core.files.replacing import write_text


def canonical_json(obj: Any) -> str:
    """JSON with sorted keys and no spaces: equal data, equal text.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def write_json(path: Path, content: Any) -> None:
    """Replace a JSON file atomically.

    Raises:
        ValueError: a number is not finite.
    """
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        RunError: it cannot be read, or holds numbers that are not finite.
    """
    text = read_text(path)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        msg = f"cannot read {path}: {error}"
        raise RunError(msg) from error


def _refuse_constant(name: str) -> None:
    msg = f"{name} is no number of JSON"
    raise ValueError(msg)


def read_table(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds a table.

    Raises:
        RunError: it cannot be read, or holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        msg = f"{path} is not what anarch wrote: expected a table, got {in_short(content)}"
        raise RunError(msg)
    return content


def in_short(content: Any) -> str:
    """What a file holds, for a message: however deep or long it is, 80 characters at most."""
    return f"{reprlib.repr(content):.80}"


def sealed(table: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON table with a digest of itself under ``"digest"``, by which :func:`require_seal` sees what was altered.

    Raises:
        ValueError: a number is not finite.
    """
    return {**table, "digest": _digest(json.loads(json.dumps(table)))}  # as it is read back: keys are texts then


def require_seal(table: Mapping[str, Any], path: Path) -> None:
    """Refuse a table that was read from a file and is not the one that :func:`sealed` gave.

    Raises:
        RunError: it was altered.
    """
    content = {key: value for key, value in table.items() if key != "digest"}
    try:
        whole = table.get("digest") == _digest(content)
    except (ValueError, RecursionError):  # it holds what is never written
        whole = False
    if not whole:
        msg = f"{path} was altered: its content does not match its digest"
        raise RunError(msg)


def _digest(content: Any) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
