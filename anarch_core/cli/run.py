"""``anarch run``: everything from the first epoch to the table of results."""

from __future__ import annotations

from anarch_core.cli.settings import RunCommand
from anarch_core.config.run_config import RunConfig


def _run(config: RunConfig) -> None:
    from anarch_core.cli.outcome import show
    from anarch_core.running.runner import run
    from anarch_core.running.stopping import interrupts

    with interrupts():
        show(run(config, out=config.directory))


command = RunCommand(
    name="run",
    callback=_run,
    help=(
        "Train a network, relax it at the switch times, train on, probe, and compare.\n\n"
        "The same command again goes on with an unfinished run, and shows the results of a finished one."
    ),
)
