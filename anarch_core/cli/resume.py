"""``anarch resume RUN``: finish what was interrupted."""

from __future__ import annotations

from pathlib import Path

import click

from anarch_core.cli.completion import offer_runs
from anarch_core.cli.saying import Saying, takes_saying


@click.command("resume")
@click.argument("run", type=click.Path(path_type=Path), shell_complete=offer_runs)
@click.option("--model", metavar="NAME", help="The run's package.module:factory, if that is its model: only you may say what is imported.")
@click.option("--data", metavar="NAME", help="Likewise, of its data.")
@takes_saying
def command(run: Path, model: str | None, data: str | None, quiet: bool, as_json: bool) -> None:
    """Finish the run in the directory RUN. On a CPU the results are the same bytes as if it had never been interrupted."""
    from anarch_core.cli.outcome import show
    from anarch_core.running.runner import resume
    from anarch_core.segment.stopping import interrupts

    saying = Saying(quiet, as_json)
    with interrupts():
        with saying.working():
            results = resume(run, model=model, data=data, progress=saying.progress)
        show(results, saying)
