"""What a network makes of a minibatch at every layer, as Gram matrices.

A layer's features are added to its matrix when it has been called, and are not kept: n² numbers are held for each layer, however wide.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from typing import Any

import attrs
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

from anarch_core.layers.base import RelaxedLayer, relaxed_layers, whole_modules
from anarch_core.models import input_dtype
from anarch_core.similarity.hsic import add_gram, u_centre

OUTPUT = "(output)"
"""What the outputs of the whole network are called, beside those of its layers."""


def layer_paths(model: nn.Module, relaxed: Collection[str] = ()) -> list[str]:
    """The layers of a network: relaxed ones as wholes, and modules that hold weights themselves, in the order of the network.

    Args:
        model: the network.
        relaxed: paths of modules that count as well: what is a relaxed layer in another network.
    """
    return [path for path, module in whole_modules(model) if path and (path in relaxed or _is_layer(path, module))]


def _is_layer(path: str, module: nn.Module) -> bool:
    if isinstance(module, torch.jit.ScriptModule) or "parametrizations" in path.split("."):
        return False
    own = any(parameter is not None for parameter in module._parameters.values())
    return isinstance(module, RelaxedLayer) or own or parametrize.is_parametrized(module)


def relaxed_paths(models: Sequence[nn.Module]) -> set[str]:
    """Where any of some networks has a relaxed layer."""
    return {path for model in models for path in relaxed_layers(model)}


@attrs.frozen(kw_only=True)
class Grams:
    """Representations of one minibatch of n samples, by layer.

    Attributes:
        flat: Gram matrices of all layers in their order, U-centred and divided by √(n (n − 3)), so that HSIC is an inner product of rows:
            [layers, n²], float64; zero where a layer gave no features.
        norms: likewise of the matrices before they were centred, [layers].
        rounding: how much of the norm of a row may be rounding, [layers].
        absent: layer -> why it gave no features, as the end of the sentence "features.0 has no similarity: ...".
        uncalled: layers that were not called.
    """

    flat: torch.Tensor
    norms: torch.Tensor
    rounding: torch.Tensor
    absent: dict[str, str]
    uncalled: set[str]


def grams_of(model: nn.Module, layers: Sequence[str], x: torch.Tensor, device: torch.device) -> Grams:
    """Run a network on one minibatch. Features of a layer are all numbers in its output for a sample, those of all its calls together.

    Args:
        model: the network, in evaluation mode.
        layers: their paths.
        x: inputs, [n, ...].
        device: where the matrices are to be.

    Returns:
        of these layers, and of the network's output as the last one.
    """
    x = x.to(next((parameter.device for parameter in model.parameters()), x.device))
    x = x.to(input_dtype(model, x)) if x.is_floating_point() else x
    names = [*layers, OUTPUT]
    grams = torch.zeros(len(names), len(x), len(x), dtype=torch.float64, device=device)
    rounding = torch.zeros(len(names), dtype=torch.float64, device=device)
    absent: dict[str, str] = {}
    uncalled = set(names)

    def record(index: int, module: nn.Module, output: Any) -> None:
        uncalled.discard(names[index])
        found = features_in(output, len(x), batch_first=getattr(module, "batch_first", True) is not False)
        if isinstance(found, str):
            absent[names[index]] = found
        else:
            rounding[index] += add_gram(grams[index], found.to(device))

    with ExitStack() as stack:
        for index, path in enumerate(layers):

            def hook(module: nn.Module, args: Any, output: Any, index: int = index) -> None:
                record(index, module, output)

            stack.enter_context(model.get_submodule(path).register_forward_hook(hook))
        output = model(x)
    record(len(layers), model, output)
    root = (len(x) * (len(x) - 3)) ** 0.5
    grams /= root
    norms = torch.linalg.vector_norm(grams.flatten(1), dim=1)
    return Grams(flat=u_centre(grams).flatten(1), norms=norms, rounding=rounding / root, absent=absent, uncalled=uncalled)


def features_in(output: Any, n: int, *, batch_first: bool = True) -> torch.Tensor | str:
    """The features in what a layer returned: the first tensor in it, sample by sample.

    Args:
        output: of the layer: a tensor, or something that holds some.
        n: number of samples.
        batch_first: False where outputs with three axes have the samples along the second one, as those of recurrent layers.

    Returns:
        [n, p]; or why there are none, as the end of the sentence "features.0 has no similarity: ...".
    """
    tensor = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, torch.Tensor)), None)
    if tensor is None:
        return f"it returns a {type(output).__name__}, in which there is no tensor"
    if tensor.is_nested or tensor.layout != torch.strided or not tensor.is_floating_point():
        return f"it returns a tensor of {str(tensor.dtype).removeprefix('torch.')}, {_kind(tensor)}, not real numbers for each sample"
    if tensor.ndim == 3 and not batch_first:
        tensor = tensor.movedim(1, 0)
    if tensor.ndim == 0 or len(tensor) != n:
        return f"it returns a tensor of {list(tensor.shape)} for {n} samples, whose first axis is not that of the samples"
    return tensor.detach().reshape(n, -1)


def _kind(tensor: torch.Tensor) -> str:
    return "nested" if tensor.is_nested else str(tensor.layout).removeprefix("torch.")
