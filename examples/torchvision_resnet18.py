"""Relax the last stage of torchvision's ResNet-18, save it, load it again, and give the weights back to torchvision.

    python examples/torchvision_resnet18.py [--size 64]

Takes the weights trained on ImageNet where torchvision has downloaded them before, random ones otherwise; downloads nothing. On inputs of
64 x 64 pixels the last stage has maps of 2 x 2, and relaxing it takes a second. The script prints what it would take at full size.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torchvision.models import ResNet18_Weights, resnet18

from anarch_core import drift, load, project, relax, save
from anarch_core.relaxation import plan

LAYERS = "layer4.*"


def trained_or_random() -> torch.nn.Module:
    """ResNet-18 with the downloaded weights if there are any."""
    weights = ResNet18_Weights.DEFAULT
    downloaded = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    print("weights:", downloaded if downloaded.exists() else "random (torchvision has none on this machine)")
    return resnet18(weights=weights if downloaded.exists() else None)


def main() -> None:
    """Torchvision to anarch and back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64, help="Height and width of the inputs.")
    size = parser.parse_args().size
    torch.manual_seed(0)
    folder = Path(tempfile.mkdtemp())

    # A plain state dict, as any tool writes it, is a checkpoint: only the architecture has to be given.
    save_file(trained_or_random().state_dict(), folder / "resnet18.safetensors")
    model = load(folder / "resnet18.safetensors", model=resnet18()).eval()

    full = plan(model, "lcn", example_input=torch.zeros(1, 3, 224, 224), layers=LAYERS)
    print(f"at 224 x 224 the locally connected {LAYERS} would take {full.bytes / 2**30:.1f} GiB")

    x = torch.randn(4, 3, size, size)
    relaxed = relax(model, "lcn", example_input=x, layers=LAYERS)
    for layer in relaxed.report.layers:
        print(f"{layer.path:22} {layer.parameters_before:>9,} -> {layer.cost.parameters:>10,} parameters, error {layer.error:.0e}")
    print(f"whole network: error {relaxed.report.error:.0e}, exact: {relaxed.report.exact}")

    # One step of training, so that there is something to save.
    relaxed.model(x).square().mean().backward()
    torch.optim.SGD(relaxed.model.parameters(), lr=1e-3).step()
    moved = drift(relaxed.model).total
    print(f"after one step: unshared part {(moved.unshared / moved.total) ** 0.5:.1e} of the weights")

    # The file knows what was done to which layer; the base architecture is again all that is needed.
    save(relaxed.model, folder / "relaxed.safetensors")
    again = load(folder / "relaxed.safetensors", model=resnet18()).eval()
    with torch.no_grad():
        same = torch.equal(again(x), relaxed.model(x))
    print(f"saved and loaded ({(folder / 'relaxed.safetensors').stat().st_size / 2**20:.0f} MiB): same outputs: {same}")

    # Back in the constrained family the names and shapes are torchvision's own.
    save_file(project(again).state_dict(), folder / "projected.safetensors")
    theirs = resnet18()
    theirs.load_state_dict(load_file(folder / "projected.safetensors"))
    print("torchvision loads the projected network")


if __name__ == "__main__":
    main()
