"""The documentation as a site: it builds without a warning and without the network, and tells every public name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

for package in ("material", "mkdocstrings", "griffe"):
    pytest.importorskip(package)

ROOT = Path(__file__).parents[2]
DOORS: dict[str, list[str]] = tomllib.loads((ROOT / "tests/architecture/doors.toml").read_text())
CHARTS = [path for path in sorted((ROOT / "docs").rglob("*.md")) if "```mermaid" in path.read_text()]
PLACES = {
    "README.md": "index.md",
    "docs/probes.md": "probes.md",
    "docs/results/one.md": "results/one.md",
    "examples/a/README.md": "examples/a/index.md",
}


@pytest.fixture(autouse=True, scope="module")
def theme():
    sys.path.insert(0, str(ROOT / "docs" / "theme"))
    yield
    sys.path.remove(str(ROOT / "docs" / "theme"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `mkdocs build --strict` builds it: links to pages and to headings that do not exist are errors."""
    place = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(place)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return place


@pytest.mark.slow
@pytest.mark.parametrize("door", DOORS)
def test_every_public_name_is_explained(site, door):
    page = (site / "reference" / "api" / f"{door}.html").read_text()
    headings = set(re.findall(r'<h2 id="([\w.]+)" class="doc doc-heading">', page))
    listed = set(re.findall(r'<a class="autorefs[^"]*"(?: title="[^"]*")? href="(?:[\w.]*\.html)?#([\w.]+)"><code>', page))
    for name in DOORS[door]:
        assert f"{door}.{name}" in headings or any(entry.endswith(f".{name}") for entry in listed), name


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site):
    loads = re.compile(
        r"<(?:script|img|iframe|source|link)\b[^>]*?\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>|url\([\"']?https?:[^)]*\)|@import[^;]*"
    )
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 50
    assert {found[0] for file in files for found in loads.finditer(file.read_text())} == set()


@pytest.mark.slow
def test_docstrings_are_read_as_they_are_written(site):
    for page in (site / "reference" / "api").glob("*.html"):
        assert (
            re.findall(r":(?:class|func|meth|attr|data|mod):<?", re.sub(r"<details.*?</details>", "", page.read_text(), flags=re.DOTALL))
            == []
        )


@pytest.mark.slow
def test_classes_of_attrs_show_their_arguments(site):
    page = re.sub("<[^>]*>", "", (site / "reference" / "api" / "anarch_core.schedule.html").read_text())
    assert "Clock(epochs: int, iterations_per_epoch: int)" in page


@pytest.mark.slow
def test_the_search_knows_pages_names_and_commands(site):
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {document["location"] for document in index["docs"]}
    assert {"tutorial.html", "reference/api/anarch_core.lattice.html#anarch_core.lattice.lift_map"} <= found
    assert "reference/commands.html#anarch-plugins-doctor" in found


@pytest.mark.slow
@pytest.mark.parametrize("page", CHARTS, ids=lambda path: path.name)
def test_charts_are_pictures(site, page):
    shown = (site / page.relative_to(ROOT / "docs").with_suffix(".html")).read_text()
    assert '<svg class="diagram"' in shown
    assert "flowchart" not in shown


def test_every_public_name_says_what_it_is():
    from anarch_site import api

    bare = [line for text in api.pages(ROOT).values() for line in text.splitlines() if line.startswith("| [`") and line.endswith("|  |")]
    assert bare == []


def test_notebooks_are_pages():
    from anarch_site.files import page_of

    (notebook,) = (ROOT / "examples").glob("*/*.ipynb")
    page = page_of("x.ipynb", notebook)
    assert page.startswith("# ")
    assert "``````python\nimport " in page


def test_links_between_files_become_links_between_pages():
    from anarch_site.links import relinked

    assert relinked("[p](docs/probes.md#memory)", "index.md", PLACES) == "[p](probes.md#memory)"
    assert relinked("[p](../../README.md)", "results/one.md", PLACES) == "[p](../index.md)"
    assert relinked("[a](../examples/a)", "probes.md", PLACES) == "[a](examples/a/index.md)"
    assert relinked("[a](https://a.b/docs/probes.md) `[p](docs/probes.md)`", "index.md", PLACES) == (
        "[a](https://a.b/docs/probes.md) `[p](docs/probes.md)`"
    )
    assert relinked("[gone](docs/gone.md)", "index.md", PLACES) == "[gone](docs/gone.md)", "the build refuses it"


def test_a_chart_of_other_things_stays_text():
    from anarch_site.diagram import drawn, edges

    assert edges("flowchart TD\n  a --> b & c\n  b --> c\n") == [("a", "b"), ("a", "c"), ("b", "c")]
    other = "```mermaid\nsequenceDiagram\n  a ->> b: c\n```"
    assert drawn(other) == other
