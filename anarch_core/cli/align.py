"""``anarch align FILE --to OTHER``: permute the channels of a checkpoint's network so that it is near another one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anarch_core.bounds import SEED, between
from anarch_core.cli.checkpoints import free_path, model_options, open_network, print_table
from anarch_core.cli.completion import offer_checkpoints
from anarch_core.cli.components import ComponentCommand
from anarch_core.cli.numbers import number_option
from anarch_core.errors import legible

if TYPE_CHECKING:
    from anarch_core.alignment.aligning import LayerDistance


@click.command("align", cls=ComponentCommand, components={"model": "model"})
@click.argument("file", type=click.Path(path_type=Path), shell_complete=offer_checkpoints)
@click.option(
    "--to",
    required=True,
    type=click.Path(path_type=Path),
    metavar="OTHER",
    shell_complete=offer_checkpoints,
    help="Checkpoint of the network to come near to, of the same architecture.",
)
@number_option("--restarts", default=1, range=between(0, 1000), help="Further random orders in which groups of channels are matched.")
@number_option("--seed", default=0, range=SEED, help="Of these orders.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write.  [default: FILE with 'aligned' added]")
@click.option("--force", is_flag=True, help="Replace the file that is written to.")
@model_options
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    to: Path,
    restarts: int,
    seed: int,
    out: Path | None,
    force: bool,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    classes: int | None,
) -> None:
    """Permute the channels of FILE's network, which changes nothing that it computes, to be near that of OTHER, and write it."""
    out = free_path(out, file.with_name(f"{file.stem}.aligned.safetensors"), force=force)
    opened, other = (open_network(ctx, each, model, input_shape, classes) for each in (file, to))

    import torch

    from anarch_core.alignment.aligning import LayerDistance, align
    from anarch_core.checkpoint.network import save

    dtype = next(opened.network.parameters()).dtype
    example = torch.randn(2, *opened.spec.input_shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = align(opened.network, other.network, example, seed=seed, restarts=restarts)
    whole = LayerDistance(before=found.before, after=found.after, norm=math.hypot(*(each.norm for each in found.layers.values())))
    rows = [_row(path, each) for path, each in {**found.layers, "all parameters": whole}.items()]
    print_table([("layer", "distance", "aligned", f"norm in {to.name}"), *rows], numbers=3)
    for remark in found.remarks():
        click.echo(legible(remark))
    save(found.network, out, model_spec=opened.spec, moment=opened.description.step, extra=opened.metadata)
    click.echo(f"wrote {out}, {out.stat().st_size:,} bytes")


def _row(path: str, distance: LayerDistance) -> tuple[str, ...]:
    return path, *(f"{value:.4g}" for value in (distance.before, distance.after, distance.norm))
