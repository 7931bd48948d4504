"""``anarch plan``: what a run would do, before it does it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from anarch_core.cli.run import run_directory
from anarch_core.cli.settings import RunCommand
from anarch_core.config.run_config import RunConfig
from anarch_core.machine import human_bytes, human_duration

if TYPE_CHECKING:
    from rich.console import Console

    from anarch_core.planning.plan import NetworkPlan, RunPlan


def _plan(config: RunConfig, timed: bool) -> None:
    from rich.console import Console

    from anarch_core.planning.plan import plan_run

    # Where the output is no terminal there is no width to fit.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    plan = plan_run(config, timed=timed)
    for label, text in _facts(plan):
        console.print(f"{label:<12}{text}", markup=False, soft_wrap=True)
    _print_networks(console, plan)
    _print_memory(console, plan)
    for network in plan.networks:
        _print_layers(console, network)
    if plan.refusal is not None:
        console.print(f"\nThis run would not start: {plan.refusal}", markup=False, soft_wrap=True)
        click.get_current_context().exit(1)


def _facts(plan: RunPlan) -> list[tuple[str, str]]:
    config = plan.config
    sizes = ", ".join(f"{count:,} {name}" for name, count in plan.samples.items())
    moments = ", ".join(str(moment) for moment in plan.moments) or "found while the trunk trains"
    epochs = sum(segment.settings.iterations for segment in plan.segments) / plan.clock.iterations_per_epoch
    kinds = [segment.kind for segment in plan.segments]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    facts = [
        ("data", f"{config.data}: {sizes} samples of shape {'×'.join(map(str, plan.input_shape))}"),
        ("model", str(config.model)),
        (
            "trunk",
            f"{config.epochs} epochs of {plan.clock.iterations_per_epoch} steps, {config.optimizer}, {config.lr:g} ({config.lr_schedule})",
        ),
        ("branches", f"{config.branch_epochs} epochs, {config.branch_lr:g} ({config.branch_lr_schedule})"),
        ("switch", f"{config.switch}: {moments}"),
        *(("path", path) for path in config.path),
        ("seeds", ", ".join(map(str, config.seeds))),
        ("segments", f"{len(plan.segments)} ({counts}), {epochs:,.0f} epochs in all"),
        ("device", f"{config.device}, {plan.free_bytes / 1e9:.1f} GB free, {config.precision}"),
        ("directory", str(run_directory(config))),
    ]
    if plan.seconds is not None:
        facts.append(("time", f"about {human_duration(plan.seconds)} of training, {_at_once(config.jobs or 1)}; measurements come on top"))
    return facts


def _print_networks(console: Console, plan: RunPlan) -> None:
    from rich.table import Table

    columns = ("parameters", "size", "FLOPs a sample", "a step", "segments", "steps")
    table = Table("network", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, justify="right")
    for network in plan.networks:
        table.add_row(
            network.footprint.name,
            f"{network.footprint.parameters:,}",
            human_bytes(network.footprint.bytes),
            f"{network.flops:,}",
            "–" if network.step_seconds is None else f"{1000 * network.step_seconds:.2f} ms",
            str(network.segments),
            f"{network.iterations:,}",
        )
    console.print()
    console.print(table)


def _print_memory(console: Console, plan: RunPlan) -> None:
    """What each network needs beside what is at hand, and how far the batch could grow."""
    from rich.table import Table

    works = list(dict.fromkeys(work for network in plan.networks for work in network.needed_bytes))
    table = Table("memory", box=None, pad_edge=False, header_style="bold")
    for column in (*works, "at hand", "fits", "largest batch"):
        table.add_column(column, justify="right")
    for network in plan.networks:
        sizes, over = network.needed_bytes, "" if network.footprint.complete else "over "
        table.add_row(
            network.footprint.name,
            *(over + human_bytes(sizes[work]) if work in sizes else "–" for work in works),
            human_bytes(plan.free_bytes),
            "yes" if max(sizes.values()) <= plan.free_bytes else "no",
            _batch(network.largest_batch, plan.samples["train"]),
        )
    console.print()
    console.print(table)


def _batch(largest: int | None, samples: int) -> str:
    if largest is None:
        return "not known"
    if largest >= samples:
        return "all samples"
    unit = 10 ** max(0, len(str(largest)) - 2)
    return f"about {largest // unit * unit:,}" if largest else "none"


def _print_layers(console: Console, network: NetworkPlan) -> None:
    from rich.table import Table

    report = network.footprint.report
    if report is None:
        return
    table = Table("layer", "type", box=None, pad_edge=False, header_style="bold")
    for column in ("parameters", "relaxed", "size", "FLOPs a sample"):
        table.add_column(column, justify="right")
    for layer in report.layers:
        cost = layer.cost
        table.add_row(
            layer.path, layer.before, f"{layer.parameters_before:,}", f"{cost.parameters:,}", human_bytes(cost.bytes), f"{cost.flops:,}"
        )
    console.print(f"\n{network.footprint.name}:", markup=False)
    console.print(table)
    for path, reason in report.refused.items():
        console.print(f"{path or 'the network'} cannot be relaxed: {reason}", markup=False, soft_wrap=True)


def _at_once(jobs: int) -> str:
    return "one segment after the other" if jobs == 1 else f"{jobs} segments at once"


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
