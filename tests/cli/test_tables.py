"""Columns in the terminal: narrow or wide, nothing is cut."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from anarch_core.cli.tables import NumberTable, print_facts

HEADINGS = ("network", "parameters", "size", "FLOPs a sample", "a step", "largest batch")
LINES = (
    ("constrained", "143,178", "572.7 kB", "15,547,648", "12.02 ms", "about 46,000"),
    ("efcn", "73,952,522", "295.8 MB", "147,858,688", "301.55 ms", "about 49,000"),
)


def shown(table, width):
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 160])
def test_no_number_is_cut_and_no_line_is_too_long(width):
    lines = shown(NumberTable(HEADINGS, LINES), width)
    text = "\n".join(lines)
    assert all(len(line) <= width for line in lines)
    assert all(cell in text for line in LINES for cell in line)
    assert all(word in text for heading in HEADINGS for word in heading.split())


def test_a_table_that_fits_is_one_table_and_one_that_does_not_repeats_its_first_column():
    assert [line.split()[0] for line in shown(NumberTable(HEADINGS, LINES), 80)[-2:]] == ["constrained", "efcn"]
    assert sum(line.startswith("constrained") for line in shown(NumberTable(HEADINGS, LINES), 80)) == 1
    assert sum(line.startswith("constrained") for line in shown(NumberTable(HEADINGS, LINES), 40)) == 3


def test_numbers_stand_under_one_another_and_below_their_heading():
    lines = shown(NumberTable(("layer", "type", "parameters"), [("a", "Conv2d", "1"), ("b", "Linear", "12,000")], texts=2), 80)
    assert lines == ["layer  type    parameters", "a      Conv2d           1", "b      Linear      12,000"]


def test_a_name_longer_than_the_line_goes_on_below():
    lines = shown(NumberTable(("layer", "size"), [("features." + 30 * "x", "1.2 MB")]), 24)
    assert "".join(line for line in lines[1:] if "MB" not in line).startswith("features.")
    assert any("1.2 MB" in line for line in lines)


def test_what_is_said_of_a_label_is_indented_on_a_terminal_and_one_line_in_a_file():
    facts = [("switch", "log:20: 0ep, 1ep, 2ep, 3ep, 4ep, 6ep, 8ep"), ("seeds", "0")]
    terminal, file = io.StringIO(), io.StringIO()
    print_facts(Console(file=terminal, width=30, force_terminal=True, color_system=None), facts)
    print_facts(Console(file=file, width=30), facts)
    assert [line.rstrip() for line in terminal.getvalue().splitlines()] == [
        "switch  log:20: 0ep, 1ep, 2ep,",
        "        3ep, 4ep, 6ep, 8ep",
        "seeds   0",
    ]
    assert file.getvalue().splitlines() == ["switch  log:20: 0ep, 1ep, 2ep, 3ep, 4ep, 6ep, 8ep", "seeds   0"]
