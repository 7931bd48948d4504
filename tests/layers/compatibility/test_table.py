"""``docs/compatibility.md`` says of every family what the tests here show, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (Path(__file__).parents[3] / "docs/compatibility.md").read_text()


def shown() -> dict[str, bool]:
    """Rows that a test of every family stands behind, and what it shows."""
    rows: dict[str, bool] = {}
    for file in sorted(HERE.glob("test_*.py")):
        for function in ast.walk(ast.parse(file.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.row":
                    (name,) = (ast.literal_eval(argument) for argument in mark.args)
                    assert name not in rows
                    assert {argument.arg for argument in function.args.args} & {"family", "network", "small"}
                    rows[name] = all(ast.literal_eval(keyword.value) for keyword in mark.keywords if keyword.arg == "holds")
    return rows


def tabled() -> tuple[list[str], dict[str, list[str]]]:
    header, _, *rows = re.findall(r"^\|.*\|$", PAGE, re.MULTILINE)
    first, *others = ([cell.strip() for cell in line.strip("|").split("|")] for line in (header, *rows))
    return first[1:-1], {cells[0]: cells[1:-1] for cells in others}


def test_every_cell_has_a_test(families):
    columns, rows = tabled()
    assert tuple(column.strip("`") for column in columns) == families
    assert rows == {name: ["yes" if holds else "no"] * len(families) for name, holds in shown().items()}
