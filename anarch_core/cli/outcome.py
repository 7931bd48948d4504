"""What is printed and written when a run has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from anarch_core.cli.tables import console
from anarch_core.errors import legible
from anarch_core.experiment.store import RunStore

if TYPE_CHECKING:
    from rich.console import Console

    from anarch_core.experiment.results import Results


def show(results: Results) -> None:
    """Print the table, what went wrong, and where the results are; write the report; leave with 1 if a segment failed."""
    output = console()
    output.print(results.table())
    for what, segments in (("failed", results.failed), ("skipped", results.skipped)):
        for segment in segments.values():
            output.print(legible(f"{segment.title} {what}: {segment.error}"), markup=False, soft_wrap=True)
    output.print(f"results: {RunStore(results.path).results_file}", markup=False, soft_wrap=True)
    _report(output, results)
    if results.failed:
        click.get_current_context().exit(1)


def _report(output: Console, results: Results) -> None:
    from anarch_core.report.writer import write_report

    if not results.segments:
        return
    try:
        text = f"report:  {write_report([results.path]).path}"
    except Exception as error:  # whatever is wrong with the report, the run is done and its results are safe
        text = f"no report was written: {type(error).__name__}: {error}; try 'anarch report {results.path}'"
    output.print(legible(text), markup=False, soft_wrap=True)
