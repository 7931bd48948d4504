"""``anarch project FILE``: take the relaxed network of a checkpoint back to its constraints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anarch_core.cli.checkpoints import free_path, model_options, open_network, print_table
from anarch_core.cli.completion import offer_checkpoints
from anarch_core.cli.components import ComponentCommand, split_names

if TYPE_CHECKING:
    from anarch_core.constraint.parts import Drift


@click.command("project", cls=ComponentCommand, components={"model": "model"})
@click.argument("file", type=click.Path(path_type=Path), shell_complete=offer_checkpoints)
@click.option("--layers", multiple=True, metavar="PATTERN,...", help="Layers by shell pattern, '!' excludes.  [default: all]")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write.  [default: FILE with 'projected' added]")
@click.option("--force", is_flag=True, help="Replace the file that is written to.")
@model_options
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    layers: tuple[str, ...],
    out: Path | None,
    force: bool,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    classes: int | None,
) -> None:
    """Say how far the relaxed network of FILE is from its constraints, and write the nearest network that obeys them."""
    out = free_path(out, file.with_name(f"{file.stem}.projected.safetensors"), force=force)
    opened = open_network(ctx, file, model, input_shape, classes)

    from anarch_core.checkpoint.network import save
    from anarch_core.relaxation.verbs import drift, project

    projected = project(opened.network, layers=split_names(layers) or "*")
    report = drift(opened.network)
    parts = [*report.layers.items(), ("all relaxed layers", report.total)]
    print_table([("layer", "norm", "shared", "unshared", "off-local"), *(_row(path, part) for path, part in parts)], numbers=4)
    click.echo("parts are norms over the norm of all; projecting keeps the shared part")
    save(projected, out, model_spec=opened.spec, moment=opened.description.step, extra=opened.metadata)
    click.echo(f"wrote {out}, {out.stat().st_size:,} bytes")


def _row(path: str, drift: Drift) -> tuple[str, ...]:
    whole = drift.total or 1.0
    parts = (math.sqrt(part / whole) for part in (drift.shared, drift.unshared, drift.off_local))
    return path, f"{math.sqrt(drift.total):.4g}", *(f"{part:.4f}" for part in parts)
