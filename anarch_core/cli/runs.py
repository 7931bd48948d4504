"""``anarch runs``: what lies in a folder of runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anarch_core.cli.saying import document
from anarch_core.errors import plain

if TYPE_CHECKING:
    from rich.console import Console

    from anarch_core.experiment.listing import Listed

WIDEST = 10_000
"""Columns where the output is no terminal: a line for each run, however long."""


@click.command("runs")
@click.argument("folder", default="runs", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(folder: Path, as_json: bool) -> None:
    """List the runs in FOLDER ("runs" if not given) and below, those written last at the end.

    For each: what it is, whether it is finished, stopped, failed or running, its best test score, and the size of its files. The segments
    are counted as far as they are asked for. Directories that are damaged are listed, and what is wrong with them is said.
    """
    from anarch_core.cli.tables import console
    from anarch_core.experiment.runs import record, runs

    found = runs(folder)
    if as_json:
        document({"status": "finished", "exit_code": 0, "runs": [record(run) for run in found]})
        return
    if not found:
        click.echo(plain(f"no runs in {folder}"))
        return
    _show(console(), found.found)
    for run in found:
        if run.problem:
            click.echo(plain(f"damaged: {run.problem}"), err=True)


def _show(console: Console, runs: Sequence[Listed]) -> None:
    """One table where it fits, else a few lines a run."""
    from rich.padding import Padding
    from rich.text import Text

    from anarch_core.cli.tables import NumberTable
    from anarch_core.experiment.runs import HEADINGS, cells

    table = NumberTable(headings=HEADINGS, lines=[cells(run) for run in runs], texts=len(HEADINGS) - 1)
    if not console.is_terminal or len(table.split(console.width)) == 1:
        console.print(table, width=None if console.is_terminal else WIDEST)
        return
    for run in runs:
        name, data, model, relaxations, seeds, state, segments, best, of, written, size = cells(run)
        console.print(Text(plain(name), style="bold", overflow="fold"))
        what = (
            f"{data}, {model}"
            + (f", {relaxations}" if relaxations else "")
            + (f", seed{'s' if len(run.seeds) > 1 else ''} {seeds}" if seeds else "")
        )
        lines = [what, f"{state}, segments: {segments}", f"best test score: {best} ({of})" if of else "", f"{written}, {size}"]
        console.print(Padding(Text("\n".join(map(plain, filter(None, lines))), overflow="fold"), (0, 0, 0, 2)))
