"""``anarch plan``: what a run would do, before it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from anarch_core.cli.settings import RunCommand
from anarch_core.cli.tables import NumberTable, console, print_facts
from anarch_core.config.run_config import RunConfig
from anarch_core.display import Table

if TYPE_CHECKING:
    from rich.console import Console

    from anarch_core.planning.run_plan import NetworkPlan


def _plan(config: RunConfig, timed: bool) -> None:
    from anarch_core.running.planned import planned

    plan = planned(config, timed=timed)
    output = console()
    print_facts(output, plan.facts())
    for table in plan.tables():
        output.print()
        output.print(_columns(table))
        if table.caption:
            output.print(table.caption, style="dim italic", markup=False)
    for network in plan.networks:
        _print_layers(output, network)
    if plan.refusal is not None:
        output.print(f"\nThis run would not start: {plan.refusal}", markup=False, soft_wrap=True)
        click.get_current_context().exit(1)


def _print_layers(console: Console, network: NetworkPlan) -> None:
    report = network.footprint.report
    if report is None:
        return
    console.print(f"\n{network.footprint.name}:", markup=False)
    for table in report.overview().tables:
        console.print(_columns(table))
    for path, reason in report.refused.items():
        console.print(f"{path or 'the network'} cannot be relaxed: {reason}", markup=False, soft_wrap=True)
    if report.idleness and report.layers:  # without a layer, the refusal of the run says it
        console.print(report.idleness, markup=False, soft_wrap=True)


def _columns(table: Table) -> NumberTable:
    return NumberTable(table.headings, table.rows, texts=table.texts)


command = RunCommand(
    name="plan",
    callback=_plan,
    params=[
        click.Option(
            ["timed", "--time/--no-time"], default=True, show_default=True, help="Take some optimizer steps to measure their time."
        )
    ],
    help="Show what 'anarch run' with the same flags would do: networks, layers, memory, segments, time. Nothing is trained or written.",
)
