"""``anarch relax FILE --to NAME``: relax the network of a checkpoint."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import click

from anarch_core.cli.checkpoints import free_path, model_options, open_network, print_table
from anarch_core.cli.completion import offer_checkpoints, offer_components
from anarch_core.cli.components import ComponentCommand, component_options, split_names
from anarch_core.errors import NoEffectWarning, SurgeryError, legible
from anarch_core.plugin.registry import get_registry

if TYPE_CHECKING:
    from anarch_core.relaxation.verbs import RelaxationReport


@click.command("relax", cls=ComponentCommand, components={"to": "relaxation", "model": "model"})
@click.argument("file", type=click.Path(path_type=Path), shell_complete=offer_checkpoints)
@click.option(
    "--to",
    required=True,
    metavar="NAME",
    shell_complete=offer_components("relaxation"),
    help="Relaxation; its options are --NAME-..., see --to NAME --help.",
)
@click.option("--layers", multiple=True, metavar="PATTERN,...", help="Layers by shell pattern, '!' excludes.  [default: all]")
@click.option("--materialise", is_flag=True, help="Accept weight norm and the like: the weight of this moment becomes a free one.")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write.  [default: FILE with the relaxation's name added]")
@click.option("--delta/--full", help="Store the parent and the relaxation, or all weights of the relaxed network.  [default: full]")
@click.option("--force", is_flag=True, help="Replace the file that is written to.")
@model_options
@click.pass_context
def command(
    ctx: click.Context,
    file: Path,
    to: str,
    layers: tuple[str, ...],
    materialise: bool,
    out: Path | None,
    delta: bool,
    force: bool,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    classes: int | None,
) -> None:
    """Relax the network of FILE exactly, say how exact it is, and write it."""
    info, short = get_registry().chosen("relaxation", to)
    options = {**component_options(ctx).get(info.name, {}), **short}
    out = free_path(out, file.with_name(f"{file.stem}.{info.name}.safetensors"), force=force)
    opened = open_network(ctx, file, model, input_shape, classes)

    import torch

    from anarch_core.checkpoint.network import save
    from anarch_core.relaxation.verbs import relax

    parameter = next(opened.network.parameters())
    example = torch.randn(2, *opened.spec.input_shape, generator=torch.Generator().manual_seed(0)).to(parameter.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        try:
            relaxed = relax(
                opened.network.eval(),
                info.name,
                example_input=example,
                layers=split_names(layers) or "*",
                options=options,
                materialise=materialise,
            )
        except NoEffectWarning as warning:
            msg = f"{file}: {warning}"
            raise SurgeryError(msg) from warning
    _print_report(relaxed.report)
    save(
        relaxed.model,
        out,
        model_spec=opened.spec,
        moment=opened.description.step,
        parent=opened.network if delta else None,
        extra=opened.metadata,
    )
    click.echo(f"wrote {out}, {out.stat().st_size:,} bytes")


def _print_report(report: RelaxationReport) -> None:
    rows = [("layer", "was", "parameters", report.relaxation, "error")]
    for layer in report.layers:
        numbers = f"{layer.parameters_before:,}", f"{layer.cost.parameters:,}"
        rows.append((layer.path, layer.before, *numbers, _size(layer.error)))
    before, after = sum(layer.parameters_before for layer in report.layers), sum(layer.cost.parameters for layer in report.layers)
    rows.append(("end to end", "", f"{before:,}", f"{after:,}", _size(report.error)))
    print_table(rows, numbers=3)
    verdict = {True: "exact", False: "NOT exact", None: "not compared"}[report.exact]
    click.echo(f"{verdict}: errors are relative to the largest output, in {report.dtype}; up to {report.tolerance:.0e} counts as rounding")
    if report.kept:
        click.echo(legible(f"{report.relaxation} already, and as they were: {', '.join(report.kept)}"))
    if report.idleness:
        click.echo(legible(report.idleness))
    for note in report.notes:
        click.echo(legible(f"note: {note}"))


def _size(error: float | None) -> str:
    return "not compared" if error is None else f"{error:.1e}"
