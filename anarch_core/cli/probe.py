"""``anarch probe FILE --probe NAME,...``: measure the network of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anarch_core.bounds import SEED
from anarch_core.cli.checkpoints import model_options, open_network, print_table
from anarch_core.cli.completion import offer_checkpoints, offer_components
from anarch_core.cli.components import ComponentCommand, split_names
from anarch_core.cli.measured_data import create, data_options, load_fitting
from anarch_core.cli.numbers import number_option
from anarch_core.errors import ProbeError
from anarch_core.report.measurements import certified, error_bound

if TYPE_CHECKING:
    from torch import nn

    from anarch_core.probe.base import Measurement

OTHERS = {
    "reference": "the network at the start of its training",
    "parent": "the network that it was lifted from",
    "twin": "the network that met the batches in another order",
    "control": "the constrained network that was trained as long without being relaxed",
    "sibling": "the network of another seed",
}
"""Networks that a probe may compare with, what each is."""

MISSING = {
    "data": "data to measure on; add --data NAME",
    "relaxed": "a relaxed network, and that of {file} has no relaxed layer; relax it first with 'anarch relax'",
    **{name: f"{what}; add --{name} FILE" for name, what in OTHERS.items()},
}
"""What a probe needs and where it comes from."""


def other_networks(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options with a checkpoint of each network of :data:`OTHERS`."""
    for name, what in reversed(OTHERS.items()):
        given: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "FILE", "shell_complete": offer_checkpoints}
        function = click.option(f"--{name}", **given, help=f"Checkpoint of {what}.")(function)
    return function


@click.command("probe", cls=ComponentCommand, components={"probe": "probe", "data": "dataset", "objective": "objective", "model": "model"})
@click.argument("file", type=click.Path(path_type=Path), shell_complete=offer_checkpoints)
@click.option(
    "--probe",
    "probe",
    multiple=True,
    required=True,
    metavar="NAME,...",
    shell_complete=offer_components("probe", several=True),
    help="Probes; options are --NAME-..., see --probe NAME --help.",
)
@data_options
@other_networks
@number_option("--seed", default=0, range=SEED, help="For any randomness of the probes.")
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Also write everything that was measured as JSON.")
@model_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    file: Path,
    probe: tuple[str, ...],
    data: str | None,
    objective: str,
    data_root: Path | None,
    device: str,
    seed: int,
    out: Path | None,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    classes: int | None,
    **others: Path | None,
) -> None:
    """Measure the network of FILE, which is read and never written."""
    from anarch_core.cards import one_device
    from anarch_core.probe.base import ProbeContext
    from anarch_core.probe.measuring import measured, missing_needs

    probes = {name: create(ctx, "probe", name) for name in split_names(probe)}
    opened = open_network(ctx, file, model, input_shape, classes)
    for name, made in probes.items():
        for need in missing_needs(made, opened.network, data=data, **others):
            msg = f"the probe {name} needs {MISSING[need].format(file=file)}"
            raise ProbeError(msg)
    where = one_device(device)

    def network(path: Path | None) -> nn.Module | None:
        return None if path is None else open_network(ctx, path, model, input_shape, classes).network.to(where)

    context = ProbeContext(
        model=opened.network.to(where),
        data=None if data is None else load_fitting(ctx, data, objective, data_root, opened.spec, file, opened.network, where),
        seed=seed,
    ).beside({name: network(path) for name, path in others.items()})
    found = {name: measured(made, context) for name, made in probes.items()}
    for name, measurement in found.items():
        _print(name, measurement)
    if out is not None:
        _write(out, file, data, seed, found)


def _print(name: str, measurement: Measurement) -> None:
    rows = [("scalar", "value", "unit")]
    for scalar, value in measurement.scalars.items():
        rows.append((scalar, "not measurable" if value is None else f"{value:.6g}", measurement.units.get(scalar, "")))
    click.echo(f"{name}")
    print_table(rows, numbers=0)
    if measurement.note:
        click.echo(measurement.note)
    eigenvalues = list(certified(measurement.details))
    if eigenvalues:
        click.echo()
        print_table(
            [("eigenvalue", "value", "residual", "error bound", "products", "converged"), *map(_certificate, eigenvalues)], numbers=5
        )
    click.echo()


def _certificate(named: tuple[str, Mapping[str, Any]]) -> tuple[str, ...]:
    name, found = named
    numbers = f"{found['value']:.6g}", f"{found['residual']:.1e}", error_bound(found), str(found["products"])
    return name, *numbers, "yes" if found["converged"] else "NO"


def _write(out: Path, file: Path, data: str | None, seed: int, found: Mapping[str, Measurement]) -> None:
    from anarch_core.files.tables import write_json

    probes = {
        name: {"scalars": dict(measurement.scalars), "units": dict(measurement.units), "details": dict(measurement.details)}
        | ({"omitted": measurement.omitted} if measurement.omitted else {})
        for name, measurement in found.items()
    }
    write_json(out, {"file": str(file), "data": data, "seed": seed, "probes": probes})
    click.echo(f"wrote {out}")
