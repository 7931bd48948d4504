"""The data that a checkpoint is measured on: options, loading, and whether they fit the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from anarch_core.cli.completion import offer_components
from anarch_core.cli.components import component_options
from anarch_core.errors import DataError
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.registry import get_registry

if TYPE_CHECKING:
    from torch import nn

    from anarch_core.data.tensor_data import TensorData
    from anarch_core.models import ModelSpec


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what data a network is measured on, and where."""
    for option in (
        click.option("--device", default="auto", metavar="DEVICE", help="Device: auto, cpu, cuda or cuda:N.  [default: auto]"),
        click.option("--data-root", type=click.Path(path_type=Path), metavar="DIR", help="Folder the data is found in."),
        click.option(
            "--objective",
            default="cross-entropy",
            metavar="NAME",
            shell_complete=offer_components("objective"),
            help="What the network was trained for.  [default: cross-entropy]",
        ),
        click.option(
            "--data",
            metavar="NAME",
            shell_complete=offer_components("dataset"),
            help="Data set; its options are --NAME-..., see --data NAME --help.",
        ),
    ):
        function = option(function)
    return function


def load_fitting(
    ctx: click.Context, name: str, objective: str, root: Path | None, spec: ModelSpec, file: Path, network: nn.Module, device: str
) -> TensorData:
    """The data set on the network's device and in its precision, with what is to be learnt of it.

    Raises:
        DataError: its inputs or targets are not those of the network.
    """
    from anarch_core.data.loading import load_data
    from anarch_core.models import input_dtype

    data = load_data(
        name, root=root, options=component_options(ctx).get(parse_spec(name)[0]), objective=create(ctx, "objective", objective)
    )
    shapes = (tuple(data.input_shape), tuple(data.output_shape)), (tuple(spec.input_shape), tuple(spec.outputs))
    if shapes[0] != shapes[1]:
        there, here = (_shape(*pair) for pair in shapes)
        msg = f"{name} has {there}, but the network of {file} takes {here}; name the data set that it was trained on"
        raise DataError(msg)
    return data.to(device, input_dtype(network, data.x_train))


def create(ctx: click.Context, kind: str, spec: str) -> Any:
    """A component with the options of the command line.

    Args:
        ctx: of the command.
        kind: of the component.
        spec: ``name`` or ``name:value``.
    """
    registry = get_registry()
    info, short = registry.chosen(kind, spec)
    return registry.create(kind, info.name, {**component_options(ctx).get(info.name, {}), **short})


def _shape(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> str:
    told = f"{outputs[0]} classes" if len(outputs) == 1 else f"outputs {'×'.join(map(str, outputs))}"
    return f"inputs {'×'.join(map(str, inputs))} and {told}"
