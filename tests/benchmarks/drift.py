"""What drift and ablation need of the VanillaCNN's eFCN: the norms of its three parts, and a weight with only its receptive fields."""

from __future__ import annotations

import functools

import torch
from measure import OURS, Case, Step

from anarch_core.layers.base import RelaxedLayer, relaxed_layers
from anarch_core.models import build_model
from anarch_core.relaxation.verbs import relax

LOCAL = ("shared", "unshared")


def layers() -> list[RelaxedLayer]:
    """Embedded, and moved a little in all directions."""
    torch.manual_seed(0)
    model = build_model("vanilla-cnn", input_shape=(3, 32, 32), classes=10)
    relaxed = relax(model, "efcn", example_input=torch.randn(2, 3, 32, 32), check=False).model
    with torch.no_grad():
        for parameter in relaxed.parameters():
            for row in parameter:
                row.add_(torch.randn_like(row), alpha=1e-3)
    return list(relaxed_layers(relaxed).values())


def labels(layer: RelaxedLayer) -> torch.Tensor:
    """Which weight of the convolution each entry of the matrix is, counted from 1, and 0 outside of the receptive fields: Φ, int64."""
    conv = layer.project()
    with torch.no_grad():
        conv.weight.copy_(torch.arange(1.0, conv.weight.numel() + 1).view_as(conv.weight))
    x = torch.zeros(1, conv.in_channels, *layer.geometry.input_size)
    return relax(torch.nn.Sequential(conv), "efcn", example_input=x, check=False).model[0].weight.detach().long()


@torch.no_grad()
def norms_by_labels(layer: RelaxedLayer, label: torch.Tensor) -> tuple[float, float, float]:
    """Squared norms of ΦΦ⁺W, of the rest of the receptive fields, and of the rest, with matrices as large as W throughout."""
    weight = layer.weight
    mask = (label > 0).to(weight.dtype)
    counts = torch.bincount(label.flatten())
    sums = torch.zeros(len(counts), dtype=torch.float64).index_add_(0, label.flatten(), weight.double().flatten())
    sharing = (sums / counts).to(weight.dtype)[label] * mask
    local = weight * mask
    return tuple(float(part.double().square().sum()) for part in (sharing, local - sharing, weight - local))


def drift_ours() -> Step:
    found = layers()
    return lambda: [layer.drift() for layer in found]


def drift_published() -> Step:
    found = [(layer, labels(layer)) for layer in layers()]
    return lambda: [norms_by_labels(*pair) for pair in found]


def read_once() -> Step:
    weights = [layer.weight.detach() for layer in layers()]
    return lambda: [torch.linalg.vector_norm(weight) for weight in weights]


def mask_ours() -> Step:
    found = layers()
    return lambda: [layer.keep(layer.weight, LOCAL) for layer in found]


def mask_published() -> Step:
    """With the mask at hand, as large as the weight."""
    found = [(layer.weight.detach(), (labels(layer) > 0).to(layer.weight.dtype)) for layer in layers()]
    return lambda: [weight * mask for weight, mask in found]


def write_once() -> Step:
    weights = [layer.weight.detach() for layer in layers()]
    return lambda: [torch.zeros_like(weight).fill_(1.0) for weight in weights]


def case() -> Case:
    return Case(
        title="drift of the VanillaCNN's eFCN",
        contenders={"labels of every entry": drift_published, OURS: drift_ours, "read the weights once": read_once},
        flops=0,
        bytes=_bytes(),
    )


def mask_case() -> Case:
    return Case(
        title="receptive fields of the VanillaCNN's eFCN, for ablation",
        contenders={"mask times weight": mask_published, OURS: mask_ours, "write the result once": write_once},
        flops=0,
        bytes=_bytes(),
    )


@functools.cache
def _bytes() -> int:
    return sum(layer.weight.nbytes for layer in layers())
