"""``anarch resume RUN``: finish what was interrupted."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from anarch_core.cli.completion import offer_runs
from anarch_core.cli.components import ComponentCommand, component_options
from anarch_core.cli.saying import Saying, saying_options
from anarch_core.cli.settings import setting_options
from anarch_core.config.files import MACHINE, SETTINGS, read_file
from anarch_core.errors import AnarchError


def _resume(run: Path, model: str | None, data: str | None, quiet: bool, as_json: bool, **machine: Any) -> None:
    from anarch_core.cli.outcome import show
    from anarch_core.running.runner import resume
    from anarch_core.segment.stopping import interrupts

    saying = Saying(quiet, as_json)
    given = {name: value for name, value in machine.items() if value is not None}
    given["options"] = component_options(click.get_current_context())
    with interrupts():
        with saying.working():
            results = resume(run, model=model, data=data, machine=given, progress=saying.progress)
        show(results, saying)


def _workers(given: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    """Who trained the run so far, whose options may be given."""
    there: Mapping[str, Any] = {}
    with contextlib.suppress(AnarchError):  # told when the run is gone on with
        there = read_file(Path(given.get("run", ""), "config.toml")).settings
    return {"workers": [there.get("workers", SETTINGS["workers"].default)]}


command = ComponentCommand(
    name="resume",
    callback=_resume,
    components={"workers": "workers"},
    choose=_workers,
    params=[
        click.Argument(["run"], type=click.Path(path_type=Path), shell_complete=offer_runs),
        click.Option(
            ["--model"], metavar="NAME", help="The run's package.module:factory, if that is its model: only you may say what is imported."
        ),
        click.Option(["--data"], metavar="NAME", help="Likewise, of its data."),
        *setting_options(MACHINE, defaults=False),
        *saying_options(),
    ],
    help=(
        "Finish the run in the directory RUN. On a CPU the results are the same bytes as if it had never been interrupted.\n\n"
        "Where and how fast it goes on may be another than before, so that a run of a cluster is finished on a workstation. What is not "
        "given stays as it was."
    ),
)
