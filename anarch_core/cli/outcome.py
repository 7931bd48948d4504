"""What is printed and written when a run has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from anarch_core.cli.saying import Saying, document
from anarch_core.cli.tables import console
from anarch_core.errors import legible
from anarch_core.experiment.kinds import mixture
from anarch_core.experiment.store import RunStore

if TYPE_CHECKING:
    from pathlib import Path

    from anarch_core.experiment.results import Results

IN_FULL_ELSEWHERE = ("history", "probe_details", "optimizer_state")
"""What the results file says of a segment, and the document of a run does not."""


def show(results: Results, saying: Saying) -> None:
    """Write the report, and print what came out and where it is, as the user wants to be told; leave with 1 if a segment failed."""
    if not (saying.quiet or saying.as_json):
        console().print(results.table())
    page, problem = _report(results, saying)
    lines = [
        f"{segment.title} {what}: {segment.error}"
        for what, segments in (("failed", results.failed), ("skipped", results.skipped))
        for segment in segments.values()
    ]
    if saying.as_json:
        document(_content(results, page))
    if saying.quiet or saying.as_json:
        for line in [*lines, *([] if problem is None else [problem])]:
            click.echo(legible(line), err=True)
    else:
        mixed = mixture(results.segments)
        lines += [] if mixed is None else [mixed]
        lines += [f"results: {RunStore(results.path).results_file}"]
        lines += [f"report:  {page}"] if page is not None else [problem] if problem is not None else []
        for line in lines:
            console().print(legible(line), markup=False, soft_wrap=True)
    if results.failed:
        click.get_current_context().exit(1)


def _report(results: Results, saying: Saying) -> tuple[Path | None, str | None]:
    """Where it is, or why it is not."""
    from anarch_core.report.writer import write_report

    if not results.segments:
        return None, None
    try:
        with saying.working():
            return write_report([results.path]).path, None
    except Exception as error:  # whatever is wrong with the report, the run is done and its results are safe
        return None, f"no report was written: {type(error).__name__}: {error}; try 'anarch report {results.path}'"


def _content(results: Results, page: Path | None) -> dict[str, Any]:
    """The run as a JSON document: what came out of each segment, without what happened on the way."""
    segments = [{name: value for name, value in segment.to_json().items() if name not in IN_FULL_ELSEWHERE} for segment in results.segments]
    unfinished = {
        what: {identity: segment.to_json() for identity, segment in some.items()}
        for what, some in (("failed", results.failed), ("skipped", results.skipped))
    }
    return {
        "status": results.status,
        "exit_code": 1 if results.failed else 0,
        "run": str(results.path),
        "results": str(RunStore(results.path).results_file),
        "report": None if page is None else str(page),
        "data": results.data,
        "model": results.model,
        "segments": segments,
        **unfinished,
    }
