"""What commands that read and write checkpoints share: which model a file holds, where results go, and plain tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import click

from anarch_core.bounds import between, shown
from anarch_core.checkpoint.description import Description, read_description
from anarch_core.checkpoint.file import read_header
from anarch_core.checkpoint.schema import BASE
from anarch_core.cli.completion import offer_components
from anarch_core.cli.components import component_options
from anarch_core.cli.numbers import number_option
from anarch_core.errors import CheckpointError, ConfigError, plain
from anarch_core.plugin.option_types import IntType, TupleType
from anarch_core.plugin.options import parse_spec
from anarch_core.plugin.registry import get_registry

if TYPE_CHECKING:
    from torch import nn

    from anarch_core.models import ModelSpec


SIZE = between(1, 10**6)
DIMENSIONS = 8
"""Sizes of an input, the channels among them."""


@attrs.frozen(kw_only=True)
class Opened:
    """A network read from a file.

    Attributes:
        network: relaxed as it was.
        spec: what its base model was built from.
        description: what the file says.
        metadata: all of the file's, to be kept in what is written.
    """

    network: nn.Module
    spec: ModelSpec
    description: Description
    metadata: dict[str, str]


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say what model a file holds where the file does not."""
    for option in (
        number_option("--classes", default=None, range=between(1, 10**6), help="Number of outputs; by default what FILE says."),
        click.option("--input-shape", callback=_shape, metavar="C,H,W", help="Shape of one input; by default what FILE says."),
        click.option(
            "--model",
            metavar="NAME",
            shell_complete=offer_components("model"),
            help="Model or package.module:factory, where FILE does not say or you brought your own.",
        ),
    ):
        function = option(function)
    return function


def open_network(ctx: click.Context, file: Path, model: str | None, input_shape: tuple[int, ...] | None, classes: int | None) -> Opened:
    """Read a network, of the model that the user names or the file does.

    Raises:
        CheckpointError: the file cannot be read or does not fit.
        ConfigError: nobody says which model it is, or what its inputs are.
    """
    header = read_header(file)
    description = read_description(header, file) if header.ours else Description(kind=BASE)
    from anarch_core.checkpoint.backing import require_model
    from anarch_core.checkpoint.network import load  # after the header, so that a bad file is told at once
    from anarch_core.models import ModelSpec, model_spec

    recorded = None if description.model is None else ModelSpec.from_dict(description.model)
    if model is None:
        if recorded is None or recorded.is_import:
            if recorded is None:
                msg = f"{file} does not say how its model is built; add --model NAME"
            else:
                msg = f"{file} holds a model of {recorded.name}, which only you may import; add --model {recorded.name}"
            raise ConfigError(msg)
        return Opened(network=load(file), spec=recorded, description=description, metadata=dict(header.metadata))
    if recorded is not None:
        input_shape, classes = input_shape or recorded.input_shape, classes or recorded.classes
    if input_shape is None or classes is None:
        msg = f"{file} does not say what its inputs and outputs are; add --input-shape C,H,W and --classes N"
        raise ConfigError(msg)
    model = get_registry().spelt_out("model", model)
    options = component_options(ctx).get(parse_spec(model)[0])
    own = options is not None
    if options is None and recorded is not None and model == recorded.name:
        options = dict(recorded.options)
    spec = model_spec(model, input_shape=input_shape, classes=classes, options=options)
    if recorded is not None and recorded.classes == classes:
        spec = attrs.evolve(spec, output_shape=recorded.output_shape)
    if recorded is not None and not spec.is_import:
        require_model(spec, header, description.relaxed, file, get_registry())
    network = load(file, model=spec.build(trusted=own or spec.is_import))  # the options of a file name no files
    return Opened(network=network, spec=spec, description=description, metadata=dict(header.metadata))


def free_path(out: Path | None, default: Path, *, force: bool) -> Path:
    """Where to write.

    Raises:
        CheckpointError: a file is there, and nobody said that it may go; or the folder is not there.
    """
    path = out or default
    if not path.parent.is_dir():
        msg = f"cannot write {path}: there is no folder {path.parent}"
        raise CheckpointError(msg)
    if path.exists() and not force:
        msg = f"{path} exists; name another file with --out, or replace it with --force"
        raise CheckpointError(msg)
    return path


def print_table(rows: Sequence[Sequence[str]], *, numbers: int) -> None:
    """Print rows of cells, the first row being the heading; the last ``numbers`` columns are flush right."""
    rows = [[plain(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.rjust(width) if index >= len(row) - numbers else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _shape(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        shape = TupleType(IntType()).parse(value)
    except ValueError:
        shape = ()
    if not shape or len(shape) > DIMENSIONS or not all(size in SIZE for size in shape):
        msg = f"{shown(value)} is not a shape like 3,32,32, of at most {DIMENSIONS} sizes {SIZE}"
        raise click.BadParameter(msg)
    return shape
