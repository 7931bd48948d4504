"""``anarch inspect FILE``: what a checkpoint holds, told without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs
import click

from anarch_core.checkpoint.description import Description, read_description
from anarch_core.checkpoint.file import read_header, verify
from anarch_core.checkpoint.header import Header
from anarch_core.checkpoint.schema import (
    CORE_VERSION,
    KIND,
    LIFTED,
    METADATA_DIGEST,
    MODEL,
    RELAXATIONS,
    SCHEMA_KEY,
    STEP,
    TENSORS_DIGEST,
)
from anarch_core.cli.checkpoints import print_table
from anarch_core.cli.completion import offer_checkpoints
from anarch_core.errors import plain


@click.command("inspect")
@click.argument("file", type=click.Path(path_type=Path), shell_complete=offer_checkpoints)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--verify", "verified", is_flag=True, help="Read the whole file and check its digests.")
def command(file: Path, as_json: bool, verified: bool) -> None:
    """Show what FILE holds: kind, model, relaxations, step, and its tensors. Any safetensors file can be shown."""
    header = verify(file) if verified else read_header(file)
    description = read_description(header, file) if KIND in header.metadata else None
    if as_json:
        click.echo(json.dumps(_record(file, header, description, verified), indent=2))
        return
    for label, text in _facts(file, header, description, verified):
        click.echo(f"{label:<12} {plain(text, 2000)}")
    click.echo()
    rows = [(name, entry.dtype, "×".join(map(str, entry.shape)) or "scalar", f"{entry.bytes:,}") for name, entry in header.tensors.items()]
    print_table([("tensor", "dtype", "shape", "bytes"), *rows, ("total", "", "", f"{header.data_bytes:,}")], numbers=1)


def _facts(file: Path, header: Header, description: Description | None, verified: bool) -> list[tuple[str, str]]:
    metadata = header.metadata
    facts = [("file", f"{file}, {header.data_start + header.data_bytes:,} bytes")]
    if not header.ours:
        return [*facts, ("kind", "a safetensors file that anarch did not write"), *sorted(metadata.items())]
    facts.append(("schema", f"{metadata[SCHEMA_KEY]}, written by anarch {metadata.get(CORE_VERSION, '(unknown)')}"))
    if description is None:
        facts.append(("kind", "state without a model"))
    else:
        facts.append(("kind", description.kind))
        facts += _model_facts(description)
    facts.append(("digest", f"{metadata.get(TENSORS_DIGEST, '(missing)')}{' (verified)' if verified else ''}"))
    shown = {"format", SCHEMA_KEY, CORE_VERSION, KIND, MODEL, RELAXATIONS, LIFTED, STEP, TENSORS_DIGEST, METADATA_DIGEST}
    return facts + [(key, text) for key, text in sorted(metadata.items()) if key not in shown]


def _model_facts(description: Description) -> list[tuple[str, str]]:
    facts = []
    if description.model is None:
        facts.append(("model", "the user's own: load it with anarch_core.load(FILE, model=...)"))
    else:
        model = description.model
        shape = "×".join(map(str, model.get("input_shape", ())))
        facts.append(("model", f"{model.get('name')}, input {shape}, {_outputs(model)}{_options(model)}"))
    for index, record in enumerate(description.relaxations):
        repeated = index >= len(description.relaxations) - description.lifted
        layers = record.get("layers", ())
        origin = f"{record.get('distribution')} {record.get('version')}"
        when = ", repeated when loaded" if repeated else ""
        facts.append(("relaxation", f"{record.get('name')} ({origin}) of {', '.join(layers)}{_options(record)}{when}"))
    if description.step is not None:
        facts.append(("step", f"iteration {description.step.iteration:,}, epoch {description.step.epoch:g}"))
    return facts


def _outputs(model: Any) -> str:
    """What one output is, in a few words."""
    shape = model.get("output_shape")
    if shape:
        return f"output {'×'.join(map(str, shape))}"
    return "1 output" if model.get("classes") == 1 else f"{model.get('classes')} classes"


def _options(record: Any) -> str:
    return "".join(f", {name}={value!r}" for name, value in (record.get("options") or {}).items())


def _record(file: Path, header: Header, description: Description | None, verified: bool) -> dict[str, Any]:
    return {
        "file": str(file),
        "bytes": header.data_start + header.data_bytes,
        "verified": verified,
        "description": None if description is None else attrs.asdict(description),
        "metadata": dict(header.metadata),
        "tensors": [
            {"name": name, "dtype": entry.dtype, "shape": list(entry.shape), "bytes": entry.bytes} for name, entry in header.tensors.items()
        ],
    }
