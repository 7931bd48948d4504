"""Results at a glance: text for people at a prompt, tables for notebooks."""

from __future__ import annotations

import re
import sys

import attrs
import pytest

from anarch_core.display import MOST_ROWS, Displayed, Overview, Table, frame
from anarch_core.errors import MissingDependencyError

TABLE = Table(headings=["layer", "size", "error"], rows=[["a<b>", "1 kB", "–"], ["c", "22 kB", "1.0"]], caption="What <it> is.", strong=[1])


@attrs.frozen(kw_only=True, repr=False)
class Shown(Displayed):
    what: Overview

    def overview(self) -> Overview:
        return self.what


def text(table: Table, width: int = 80) -> list[str]:
    return list(table.lines(width))


def test_columns_of_numbers_are_flush_right():
    assert text(TABLE) == ["layer   size  error", "a<b>    1 kB      –", "c      22 kB    1.0", "What <it> is."]


def test_a_wide_table_is_told_in_parts_that_share_the_names():
    assert text(TABLE, 14) == [
        "layer   size",
        "a<b>    1 kB",
        "c      22 kB",
        "",
        "layer  error",
        "a<b>       –",
        "c        1.0",
        "What <it> is.",
    ]


def test_text_of_others_cannot_turn_the_terminal_round():
    assert text(Table(headings=["a"], rows=[["\x1b[31m\n"]])) == ["a", "\\x1b[31m"]


def test_html_is_escaped_and_brings_no_scripts_and_no_colours():
    html = Shown(what=Overview(title="<script>", facts=[("<a>", "<b>")], tables=[TABLE], notes=["<i>"]))._repr_html_()
    assert "<script" not in html
    assert {"&lt;script&gt;", "&lt;b&gt;", "a&lt;b&gt;", "What &lt;it&gt; is."} <= set(re.findall(r">([^<>]*&lt;[^<]*)<", html))
    assert '<td style="text-align: left"><strong>c</strong></td>' in html
    assert not re.search(r"color|background|class=|id=|<style|on\w+=|href", html)


def test_a_long_table_says_how_much_is_left_out():
    long = Table(headings=["n"], rows=[[str(number)] for number in range(MOST_ROWS + 5)])
    assert text(long)[-1] == "and 5 more rows"
    assert "and 5 more rows" in long.html()
    assert long.html().count("<tr>") == MOST_ROWS + 1


def test_text_and_facts_are_aligned(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    shown = Shown(what=Overview(title="Title", facts=[("a", "1"), ("longer", "2")], notes=["word " * 12]))
    assert repr(shown) == f"Title\na       1\nlonger  2\n{' '.join(['word'] * 8)}\n{' '.join(['word'] * 4)}"
    assert repr(Shown(what=Overview(title="Title"))) == "Title"


def test_a_frame_has_every_column_that_some_row_has():
    pandas = pytest.importorskip("pandas")
    found = frame([{"a": 1}, {"a": 2, "b": 3.0}], ["z", "a"])
    assert isinstance(found, pandas.DataFrame)
    assert list(found.columns) == ["z", "a", "b"]
    assert found["b"].isna().tolist() == [True, False]
    assert list(frame([], ["a"]).columns) == ["a"]


def test_without_pandas_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependencyError, match="a data frame needs pandas, which is not installed: pip install pandas"):
        frame([])
