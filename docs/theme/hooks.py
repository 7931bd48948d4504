"""What mkdocs calls: pages that are made, links that lead out of ``docs/``, and diagrams."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from anarch_site import api, commands, diagram, links
from anarch_site.files import page_of
from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

ROOT = Path(__file__).parents[2]
SHIM = "https://unpkg.com/iframe-worker/shim"
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""Files of the root that are pages, and what they are called on the site."""


def on_config(config: Any) -> Any:
    """Write the folders of the navigation out."""
    config.nav = [_written_out(entry) for entry in config.nav]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what does not lie in ``docs/``."""
    for path, page in _places().items():
        if not path.startswith("docs/"):
            files.append(File.generated(config, page, content=page_of(path, ROOT / path)))
    for page, text in {**api.pages(ROOT), "reference/commands.md": commands.page()}.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Make links between files links between pages, and draw diagrams."""
    return diagram.drawn(links.relinked(markdown, page.file.src_uri, _places()))


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Leave source code out of the search, which would find little else."""
    return html.replace('<details class="mkdocstrings-source">', '<details class="mkdocstrings-source" data-search-exclude>')


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Take the script that makes the search work without a server from the site, not from elsewhere."""
    return output.replace(SHIM, get_relative_url("theme/worker.js", page.url))


def on_post_template(output: str, template_name: str, config: Any) -> str:
    """The same for the page that is shown where there is none."""
    return output.replace(SHIM, "theme/worker.js")


def _written_out(entry: Any) -> Any:
    """An entry of the navigation, with pages where it names the folder of the API or that of the examples."""
    ((title, value),) = entry.items() if isinstance(entry, dict) else ((None, entry),)
    if isinstance(value, list):
        return {title: [_written_out(child) for child in value]}
    if value == "reference/api/":
        return {title: ["reference/api/index.md", *({door.removeprefix("anarch_core."): api.place(door)} for door in api.doors(ROOT))]}
    if value == "examples/":
        return {title: sorted((page for page in _places().values() if page.startswith("examples/")), key=_readmes_first)}
    return entry


def _readmes_first(page: str) -> tuple[bool, bool, str]:
    return page != "examples/index.md", not page.endswith("index.md"), page


def _places() -> dict[str, str]:
    """By file of the repository, the page it is."""
    documents = [path.relative_to(ROOT) for path in sorted((ROOT / "docs").rglob("*.md"))]
    examples = [path.relative_to(ROOT) for path in sorted((ROOT / "examples").rglob("README.md"))]
    scripts = [path.relative_to(ROOT) for pattern in ("*.py", "*/*.ipynb") for path in sorted((ROOT / "examples").glob(pattern))]
    return {
        **PAGES,
        **{path.as_posix(): path.relative_to("docs").as_posix() for path in documents},
        **{path.as_posix(): path.with_name("index.md").as_posix() for path in examples},
        **{path.as_posix(): f"{path.as_posix()}.md" for path in scripts},
    }
