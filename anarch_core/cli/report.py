"""``anarch report RUN...``: figures and one page about finished runs."""

from __future__ import annotations

from pathlib import Path

import click

from anarch_core.cli.completion import offer_runs
from anarch_core.cli.saying import Saying, document, takes_saying
from anarch_core.errors import plain


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path), shell_complete=offer_runs)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The page.  [default: report.html in RUN, or here where there are several]",
)
@takes_saying
def command(runs: tuple[Path, ...], out: Path | None, quiet: bool, as_json: bool) -> None:
    """Write one self-contained HTML page about the run directories RUN, and the figures as PNG and SVG.

    Several runs are put side by side. A figure that a run has no data for is left out, and the page says why.
    """
    from anarch_core.report.writer import write_report

    saying = Saying(quiet, as_json)
    with saying.working():
        report = write_report(runs, out)
    for text in report.damaged:
        click.echo(plain(f"damaged: {text}"), err=True)
    if as_json:
        files = {name: [str(report.folder / f"{name}.{suffix}") for suffix in ("png", "svg")] for name in report.figures}
        told = {"figures": files, "left_out": dict(report.missing), "damaged": list(report.damaged)}
        document({"status": "finished", "exit_code": 0, "report": str(report.path), **told})
    elif not quiet:
        for title, reason in report.missing.items():
            click.echo(plain(f"left out: {title}: {reason}"))
        click.echo(f"figures: {report.folder}")
        click.echo(f"report:  {report.path}")
