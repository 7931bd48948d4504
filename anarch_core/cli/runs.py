"""``anarch runs``: what lies in a folder of runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from anarch_core.cli.saying import document
from anarch_core.errors import ConfigError, plain

if TYPE_CHECKING:
    from rich.console import Console

    from anarch_core.experiment.listing import Listed

HEADINGS = ("run", "data", "model", "relaxations", "seeds", "state", "segments", "best test score", "of", "written", "size")

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
    from anarch_core.experiment.listing import runs_below

    if not folder.is_dir():
        msg = f"there is no folder {folder}; name the one that runs are in, or start one by anarch run"
        raise ConfigError(msg)
    found = sorted(runs_below(folder), key=lambda run: (run.written is not None and run.written.timestamp(), str(run.path)))
    if as_json:
        document({"status": "finished", "exit_code": 0, "runs": [_record(run) for run in found]})
        return
    if not found:
        click.echo(plain(f"no runs in {folder}"))
        return
    _show(console(), found)
    for run in found:
        if run.problem:
            click.echo(plain(f"damaged: {run.problem}"), err=True)


def _show(console: Console, runs: Sequence[Listed]) -> None:
    """One table where it fits, else a few lines a run."""
    from rich.padding import Padding
    from rich.text import Text

    from anarch_core.cli.tables import NumberTable

    table = NumberTable(headings=HEADINGS, lines=[_line(run) for run in runs], texts=len(HEADINGS) - 1)
    if not console.is_terminal or len(table.split(console.width)) == 1:
        console.print(table, width=None if console.is_terminal else WIDEST)
        return
    for run in runs:
        name, data, model, relaxations, seeds, state, segments, best, of, written, size = _line(run)
        console.print(Text(plain(name), style="bold", overflow="fold"))
        what = (
            f"{data}, {model}"
            + (f", {relaxations}" if relaxations else "")
            + (f", seed{'s' if len(run.seeds) > 1 else ''} {seeds}" if seeds else "")
        )
        lines = [what, f"{state}, segments: {segments}", f"best test score: {best} ({of})" if of else "", f"{written}, {size}"]
        console.print(Padding(Text("\n".join(map(plain, filter(None, lines))), overflow="fold"), (0, 0, 0, 2)))


def _line(run: Listed) -> list[str]:
    from anarch_core.machine import human_bytes

    counts = f"{run.finished} of {run.planned}" if run.planned is not None and run.planned != run.finished else str(run.finished)
    return [
        str(run.path),
        run.data or "?",
        run.model or "?",
        ", ".join(run.relaxations),
        spans(run.seeds),
        run.state,
        f"{counts}, {run.failed} failed" if run.failed else counts,
        "" if run.best is None else f"{run.best.score} {run.best}",
        "" if run.best is None else run.best.segment,
        "" if run.written is None else f"{run.written.astimezone():%Y-%m-%d %H:%M}",
        human_bytes(run.bytes),
    ]


def _record(run: Listed) -> dict[str, object]:
    written = None if run.written is None else run.written.isoformat(timespec="seconds")
    return {**attrs.asdict(run), "path": str(run.path), "written": written}


def spans(numbers: Iterable[int]) -> str:
    """``0, 1, 2, 5`` as ``"0-2,5"``."""
    groups = itertools.groupby(enumerate(sorted({*numbers})), key=lambda pair: pair[1] - pair[0])
    runs = [[number for _, number in group] for _, group in groups]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)
