"""``anarch plan``: what a run would do, before it does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from anarch_core.cli.settings import RunCommand
from anarch_core.cli.tables import NumberTable, console, print_facts
from anarch_core.config.run_config import RunConfig
from anarch_core.machine import human_bytes, human_duration

if TYPE_CHECKING:
    from rich.console import Console

    from anarch_core.planning.plan import NetworkPlan, RunPlan


def _plan(config: RunConfig, timed: bool) -> None:
    from anarch_core.planning.plan import plan_run

    plan = plan_run(config, timed=timed)
    output = console()
    print_facts(output, _facts(plan))
    for table in (_networks(plan), _memory(plan)):
        output.print()
        output.print(table)
    for network in plan.networks:
        _print_layers(output, network)
    if plan.refusal is not None:
        output.print(f"\nThis run would not start: {plan.refusal}", markup=False, soft_wrap=True)
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
        ("directory", str(config.directory)),
    ]
    if plan.seconds is not None:
        facts.append(("time", f"about {human_duration(plan.seconds)} of training, {_at_once(config.jobs or 1)}; measurements come on top"))
    return facts


def _networks(plan: RunPlan) -> NumberTable:
    return NumberTable(
        ("network", "parameters", "size", "FLOPs a sample", "a step", "segments", "steps"),
        [
            (
                network.footprint.name,
                f"{network.footprint.parameters:,}",
                human_bytes(network.footprint.bytes),
                f"{network.flops:,}",
                "–" if network.step_seconds is None else f"{1000 * network.step_seconds:.2f} ms",
                str(network.segments),
                f"{network.iterations:,}",
            )
            for network in plan.networks
        ],
    )


def _memory(plan: RunPlan) -> NumberTable:
    """What each network needs, and how far the batch could grow."""
    works = list(dict.fromkeys(work for network in plan.networks for work in network.needed_bytes))
    lines = []
    for network in plan.networks:
        sizes, over = network.needed_bytes, "" if network.footprint.complete else "over "
        lines.append(
            (
                network.footprint.name,
                *(over + human_bytes(sizes[work]) if work in sizes else "–" for work in works),
                "yes" if max(sizes.values()) <= plan.free_bytes else "no",
                _batch(network.largest_batch, plan.samples["train"]),
            )
        )
    return NumberTable(("memory", *works, "fits", "largest batch"), lines)


def _batch(largest: int | None, samples: int) -> str:
    if largest is None:
        return "not known"
    if largest >= samples:
        return "all samples"
    unit = 10 ** max(0, len(str(largest)) - 2)
    return f"about {largest // unit * unit:,}" if largest else "none"


def _print_layers(console: Console, network: NetworkPlan) -> None:
    report = network.footprint.report
    if report is None:
        return
    lines = [
        (
            layer.path,
            layer.before,
            f"{layer.parameters_before:,}",
            f"{layer.cost.parameters:,}",
            human_bytes(layer.cost.bytes),
            f"{layer.cost.flops:,}",
        )
        for layer in report.layers
    ]
    console.print(f"\n{network.footprint.name}:", markup=False)
    console.print(NumberTable(("layer", "type", "parameters", "relaxed", "size", "FLOPs a sample"), lines, texts=2))
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
