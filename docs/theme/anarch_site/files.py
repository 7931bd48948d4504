"""Files of the repository as pages."""

from __future__ import annotations

import json
from pathlib import Path


def page_of(path: str, file: Path) -> str:
    """A page that shows a file: Markdown as it is, the cells of a notebook, or code.

    Args:
        path: of the file in the repository.
        file: where it lies.
    """
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text
    if file.suffix == ".ipynb":
        return "\n\n".join(_cell(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"])
    return f"# {file.name}\n\n`{path}`\n\n{_code(text)}"


def _cell(kind: str, source: str) -> str:
    return source if kind == "markdown" else _code(source)


def _code(text: str) -> str:
    return f"``````python\n{text.rstrip()}\n``````\n"
