"""``anarch interpolate A B``: loss and score on the way from one checkpoint to another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from anarch_core.bounds import MANY, SEED, between, shown
from anarch_core.cli.checkpoints import model_options, open_network, print_table
from anarch_core.cli.completion import offer_checkpoints, offered
from anarch_core.cli.components import ComponentCommand, split_names
from anarch_core.cli.measured_data import data_options, load_fitting
from anarch_core.cli.numbers import number_option
from anarch_core.errors import ConfigError

if TYPE_CHECKING:
    from anarch_core.objective import AbstractObjective
    from anarch_core.paths import LayerPath, LayerPaths, Profile

METHODS = ("linear", "curvilinear", "string", "band", "bezier", "polygon", "logits", "probabilities")
SIDES = ("first", "second")


@click.command("interpolate", cls=ComponentCommand, components={"data": "dataset", "objective": "objective", "model": "model"})
@click.argument("a", type=click.Path(path_type=Path), shell_complete=offer_checkpoints)
@click.argument("b", type=click.Path(path_type=Path), shell_complete=offer_checkpoints)
@click.option(
    "--method",
    multiple=True,
    default=("linear",),
    metavar="NAME,...",
    shell_complete=lambda _, __, incomplete: offered(METHODS, incomplete, several=True),
    help=f"{', '.join(METHODS)}.  [default: linear]",
)
@click.option("--layers", multiple=True, metavar="PATTERN,...", help="Layers that move, by shell pattern; '!' excludes.  [default: all]")
@click.option(
    "--rest", type=click.Choice(SIDES), default="first", show_default=True, help="Which network the layers are of that do not move."
)
@click.option("--layer-wise", is_flag=True, help="Also walk a straight path for each of these layers alone.")
@number_option("--points", default=11, range=between(3, 10_000), help="Points on the path, both ends included.")
@number_option("--samples", default=1000, range=MANY, help="Training samples, class-balanced.")
@number_option("--steps", default=200, range=between(1, 10**6), help="Steps of descent, for string and band.")
@number_option("--lr", default=0.05, range=between(0, 10**6, above=True), whole=False, help="Step size of descent.")
@number_option("--stiffness", default=1.0, range=between(0, 10**6), whole=False, help="Stiffness of the springs.")
@number_option("--curve-steps", default=1000, range=between(1, 10**6), help="Steps of training, for bezier and polygon.")
@number_option(
    "--curve-lr",
    default=0.05,
    range=between(0, 10**6, above=True),
    whole=False,
    help="Step size of training, in units of what the networks differ by.",
)
@number_option("--seed", default=0, range=SEED, help="Order of the batches of descent and training.")
@click.option("--json", "out", type=click.Path(path_type=Path), metavar="FILE", help="Also write the profiles as JSON.")
@data_options
@model_options
@click.pass_context
def command(
    ctx: click.Context,
    /,
    a: Path,
    b: Path,
    method: tuple[str, ...],
    layers: tuple[str, ...],
    rest: str,
    layer_wise: bool,
    data: str | None,
    objective: str,
    data_root: Path | None,
    device: str,
    out: Path | None,
    model: str | None,
    input_shape: tuple[int, ...] | None,
    classes: int | None,
    **settings: Any,
) -> None:
    """Walk from the network of A to that of B, lifted to a common architecture, and say how high the barrier on the way is."""
    methods = list(dict.fromkeys(split_names(method)))
    unknown = [name for name in methods if name not in METHODS]
    if unknown:
        msg = f"{shown(unknown[0])} is no method of interpolation; expected some of {', '.join(METHODS)}"
        raise click.BadParameter(msg, param_hint="--method")
    if data is None:
        msg = "the loss on the way has to be measured on data; add --data NAME"
        raise ConfigError(msg)
    from anarch_core.cards import one_device

    where = one_device(device)
    first, second = (open_network(ctx, file, model, input_shape, classes) for file in (a, b))

    for_each = [(opened.spec.input_shape, opened.spec.classes) for opened in (first, second)]
    if for_each[0] != for_each[1]:
        msg = f"{a} and {b} take other inputs or tell other classes apart: {for_each[0]} and {for_each[1]}; name two networks of one task"
        raise ConfigError(msg)
    from anarch_core.paths import interpolate, layer_by_layer

    loaded = load_fitting(ctx, data, objective, data_root, first.spec, a, first.network, where)
    ends = first.network.to(where), second.network.to(where)
    settings |= {"layers": split_names(layers) or None, "rest": rest}
    profiles = [interpolate(*ends, loaded, method=name, **settings) for name in methods]  # type: ignore[arg-type]
    for profile in profiles:
        _print(profile, loaded.objective)
    by_layer = None
    if layer_wise:
        chosen = split_names(layers) or "*"
        by_layer = layer_by_layer(*ends, loaded, layers=chosen, rest=rest, points=settings["points"], samples=settings["samples"])  # type: ignore[arg-type]
        _print_layers(by_layer)
    if out is not None:
        from anarch_core.files.tables import write_json

        found: dict[str, Any] = {"a": str(a), "b": str(b), "data": data, **settings}
        found["profiles"] = [_record(profile) for profile in profiles]
        if by_layer is not None:
            found["by_layer"] = {"rest": rest, "layers": {path: _layer_record(layer) for path, layer in by_layer.layers.items()}}
        write_json(out, found)
        click.echo(f"wrote {out}")


def _print(profile: Profile, objective: AbstractObjective) -> None:
    click.echo(profile.method)
    metric = objective.metric
    score = metric.unit if metric.name == "accuracy" else metric.name
    rows = [("position", "train loss", f"train {score}", "test loss", f"test {score}")]
    for position, train, test in zip(profile.positions, profile.train, profile.test, strict=True):
        scores = [(f"{part.loss:.4f}", f"{part.metrics[metric.name]:.{metric.digits}f}") for part in (train, test)]
        rows.append((f"{position:.3f}", *scores[0], *scores[1]))
    print_table(rows, numbers=5)
    for remark in profile.remarks():
        click.echo(remark)
    click.echo()


def _print_layers(found: LayerPaths) -> None:
    shown = found.overview()
    click.echo(shown.title)
    for table in shown.tables:
        print_table([table.headings, *table.rows], numbers=len(table.headings) - 1)
    for note in shown.notes:
        click.echo(note)
    click.echo()


def _record(profile: Profile) -> dict[str, Any]:
    """JSON-ready; a loss that is not finite is None."""

    def scores(part: Sequence[Any]) -> list[dict[str, float | None]]:
        numbers = [{"loss": score.loss, **score.metrics} for score in part]
        return [{name: value if math.isfinite(value) else None for name, value in found.items()} for found in numbers]

    barriers = {"train": attrs.asdict(profile.train_barrier), "test": attrs.asdict(profile.test_barrier)}
    scored = {"train": scores(profile.train), "test": scores(profile.test)}
    shift = {"statistics_shift": profile.statistics_shift}
    return {"method": profile.method, "positions": list(profile.positions), **scored, "barriers": barriers, **shift}


def _layer_record(layer: LayerPath) -> dict[str, Any]:
    averaged = {"train": layer.train, "test": layer.test}
    return {"numbers": layer.size, "averaged": averaged, "swapped": layer.swapped, **_record(layer.profile)}
