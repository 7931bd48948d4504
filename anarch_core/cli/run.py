"""``anarch run``: everything from the first epoch to the table of results."""

from __future__ import annotations

from anarch_core.cli.saying import Saying, saying_options
from anarch_core.cli.settings import RunCommand
from anarch_core.config.run_config import RunConfig


def _run(config: RunConfig, quiet: bool, as_json: bool) -> None:
    from anarch_core.cli.outcome import show
    from anarch_core.running.runner import run
    from anarch_core.segment.stopping import interrupts

    saying = Saying(quiet, as_json)
    with interrupts():
        with saying.working():
            results = run(config, out=config.directory, progress=saying.progress)
        show(results, saying)


command = RunCommand(
    name="run",
    callback=_run,
    params=saying_options(),
    help=(
        "Train a network, relax it at the switch times, train on, probe, and compare.\n\n"
        "The same command again goes on with an unfinished run, and shows the results of a finished one."
    ),
)
