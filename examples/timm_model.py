"""Relax the depthwise convolutions of a timm model, and give the weights back to timm.

    python examples/timm_model.py [--model mobilenetv3_small_050] [--layers "blocks.*.conv_dw"]

Weights are random: nothing is downloaded. Depthwise layers are the cheap ones to relax, as every channel has a filter of its own already.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from anarch_core import load, project, relax, save
from anarch_core.errors import SurgeryError

try:
    import timm
except ImportError:
    sys.exit("timm is not installed, so there is no model to relax; pip install timm")


def main() -> None:
    """From timm to anarch and back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenetv3_small_050", help="A model of timm.")
    parser.add_argument("--layers", default="blocks.*.conv_dw", help="Shell pattern over the paths of its modules.")
    parser.add_argument("--size", type=int, default=64, help="Height and width of the inputs.")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model, x = timm.create_model(arguments.model).eval(), torch.randn(2, 3, arguments.size, arguments.size)

    try:
        relaxed = relax(model, "lcn", example_input=x, layers=arguments.layers)
    except SurgeryError as error:  # says which layers, why, and how to leave them out
        sys.exit(str(error))
    report = relaxed.report
    before, after = sum(layer.parameters_before for layer in report.layers), sum(layer.cost.parameters for layer in report.layers)
    print(f"{arguments.model}: {len(report.layers)} layers relaxed, {before:,} -> {after:,} parameters, error {report.error:.0e}")

    path = Path(tempfile.mkdtemp()) / "relaxed.safetensors"
    save(relaxed.model, path)
    again = load(path, model=timm.create_model(arguments.model)).eval()
    with torch.no_grad():
        print("saved and loaded: same outputs:", torch.equal(again(x), relaxed.model(x)))

    theirs = timm.create_model(arguments.model)
    theirs.load_state_dict(project(again).state_dict())
    print("timm loads the projected network")


if __name__ == "__main__":
    main()
