"""What is printed and written when a run has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from anarch_core.errors import legible
from anarch_core.experiment.store import RunStore

if TYPE_CHECKING:
    from rich.console import Console

    from anarch_core.experiment.results import Results


def show(results: Results) -> None:
    """Print the table, what went wrong, and where the results are; write the report; leave with 1 if a segment failed."""
    import sys

    from rich.console import Console

    # Where the output is no terminal there is no width to fit.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    console.print(results.table())
    for what, segments in (("failed", results.failed), ("skipped", results.skipped)):
        for segment in segments.values():
            console.print(legible(f"{segment.title} {what}: {segment.error}"), markup=False, soft_wrap=True)
    console.print(f"results: {RunStore(results.path).results_file}", markup=False, soft_wrap=True)
    _report(console, results)
    if results.failed:
        click.get_current_context().exit(1)


def _report(console: Console, results: Results) -> None:
    from anarch_core.report.writer import write_report

    if not results.segments:
        return
    try:
        text = f"report:  {write_report([results.path]).path}"
    except Exception as error:  # whatever is wrong with the report, the run is done and its results are safe
        text = f"no report was written: {type(error).__name__}: {error}; try 'anarch report {results.path}'"
    console.print(legible(text), markup=False, soft_wrap=True)
